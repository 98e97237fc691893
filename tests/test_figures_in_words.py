"""Figures in README's, results/README's and docs' words beside the tables and runs they are of."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
ALL = "out+mid+pull_push+kernel"
HEADS = f"{ALL} (model.remat_heads=True)"
CLOCK = "on the clock, median"


def rows(name: str, heading: str = "") -> dict[str, dict[str, str]]:
    """The first table below a heading of a page: cells by row and column."""
    text = (RESULTS / name).read_text().partition(heading)[2] if heading else ""
    text = text or (RESULTS / name).read_text()
    lines = re.search(r"(^\|.*\n)+", text, re.M)
    assert lines, f"{name} has no table"
    header, _, *body = [[*map(str.strip, line.split("|")[1:-1])] for line in lines[0].splitlines()]
    return {cells[0]: dict(zip(header, cells, strict=True)) for cells in body}


def plan(model: str, column: str, *methods: str, name: str = "plan_h100.md") -> list[str]:
    table = rows(name, f"## {model}, ")
    return [table[method][column] for method in methods]


def both(column: str, method: str, name: str = "plan_h100.md") -> list[str]:
    return [plan(model, column, method, name=name)[0] for model in ("vgg16", "resnet18")]


def results(pattern: str, key: str = "last_test_error") -> list[float]:
    return [json.loads(path.read_text())[key] for path in sorted(RESULTS.glob(pattern))]


def metrics(name: str) -> list[dict[str, float]]:
    return [
        json.loads(line) for line in (RESULTS / name / "metrics.jsonl").read_text().splitlines()
    ]


def two(values: list[str]) -> list[str]:
    return [f"{float(value):.2f}" for value in values]


def digits() -> list[str]:
    found = [*results("digits_vgg16/baseline/*/result.json")]
    found += results(f"digits_vgg16/{ALL}/*/result.json")
    return [f"{error:.2f}" for error in found]


def of_bfloat16() -> list[str]:
    halves = plan("vgg16", "temporary MiB", "baseline", ALL, name="plan_vgg16_bfloat16.md")
    wholes = plan("vgg16", "temporary MiB", "baseline", ALL)
    pairs = zip(halves, wholes, strict=True)
    return [f"{float(half) / float(whole):.3f}".removeprefix("0") for half, whole in pairs]


def memory_of_parts() -> list[str]:
    pooled = f"{ALL} (pull_push.projection_pool=8)"
    of = [("vgg16", "out"), ("vgg16", "mid"), ("vgg16", ALL), ("vgg16", pooled)]
    of += [("resnet18", "mid"), ("resnet18", "kernel"), ("resnet18", ALL), ("resnet18", pooled)]
    return [plan(model, "peak / baseline", method)[0] for model, method in of]


def rematerialised(*names: str) -> list[str]:
    columns = {ALL: ("peak / baseline", "FLOPs / baseline"), "baseline": ("peak / baseline",)}
    return [
        plan(model, column, f"{name} (model.remat=True)", name="plan_remat.md")[0]
        for name in names
        for column in columns[name]
        for model in ("vgg16", "resnet18")
    ]


def other_cards() -> list[str]:
    return [
        plan(model, "peak / baseline", ALL, name=f"plan_{card}.md")[0]
        for card in ("rtx2080ti", "a100")
        for model in ("vgg16", "resnet18")
    ]


def like_with_like() -> list[str]:
    names = [f"{method} (model.remat=True)" for method in (ALL, "baseline")]
    pairs = [
        plan(model, "peak MiB", *names, name="plan_remat.md") for model in ("vgg16", "resnet18")
    ]
    return [f"{float(all_four) / float(baseline):.3f}" for all_four, baseline in pairs]


def steps(*methods: str, name: str = "step_vgg16.md") -> list[str]:
    table = rows(name)
    columns = ("median / baseline", "FLOPs / baseline")
    return [table[method][column] for method in methods for column in columns]


def inside() -> list[str]:
    return of_version("step_inside.md", "read inside", "mid", "pull_push", ALL, "baseline")


def of_version(name: str, version: str, *methods: str) -> list[str]:
    text = (RESULTS / name).read_text()
    table = dict(re.findall(rf"^\| (\S+) \| {version} \| \S+ \| (\S+)", text, re.M))
    return [table[method] for method in methods]


def starts() -> list[str]:
    kinds = [
        ("start_time.md", "warm"),
        ("start_time.md", "empty"),
        ("start_time_before.md", "warm"),
    ]
    return [
        f"{float(rows(name)[f'digits, {method}, start to first step, {cache} cache'][CLOCK]):.1f}"
        for name, cache in kinds
        for method in ("baseline", "all four terms")
    ]


def beside_torch() -> list[str]:
    table = rows("step_vgg16_torch.md")
    medians = [float(table[name]["median s"]) for name in ("baseline", "PyTorch baseline")]
    return [f"{medians[0] / medians[1]:.2f}"]


def resnet101() -> list[str]:
    name = "plan_resnet101.md"
    found = plan("resnet101", "peak / baseline", "out", "tree", name=name)
    (copies,) = plan("resnet101", "training-only MiB", "tree", name=name)
    return [*found, f"{float(copies):,.0f}"]


def idle() -> list[str]:
    lines = metrics("fashion_mnist_vgg16_narrow")
    most = max(line["wait_fraction"] for line in lines if line["split"] == "train")
    return [f"{100 * most:.3f}"]


def minutes() -> list[str]:
    (seconds,) = re.findall(r"`python tools/reliability.py`, seed 0, (\d+) s", reliability())
    return [f"{int(seconds) / 60:.0f}"]


def reliability() -> str:
    return (RESULTS / "reliability.md").read_text()


def clocks() -> list[str]:
    found = results("reduced/*/*/seed-*/result.json", "seconds")
    return [str(len(found)), f"{sum(found):,.0f}", f"{sum(found) / 3600 / 2:.1f}"]


NUMBER = r"([\d.,]*\d)"
CLAIMS: dict[str, tuple[str, str, Callable[[], list[str]]]] = {
    "planned memory": (
        "README.md",
        rf"peak memory, planned .*? \| {NUMBER} \| {NUMBER} \| {NUMBER} \| {NUMBER} \| {NUMBER} \|",
        lambda: two(plan("vgg16", "peak / baseline", "out", "mid", "kernel", ALL, "tree")),
    ),
    "digits": (
        "README.md",
        rf"test error was {NUMBER}, {NUMBER} and {NUMBER}% \(baseline\) and {NUMBER}, {NUMBER} and "
        rf"{NUMBER}% \(all four terms\)",
        digits,
    ),
    "digits once more": (
        "results/README.md",
        rf"last epoch, %: {NUMBER}, {NUMBER} and {NUMBER} baseline, {NUMBER}, {NUMBER} and "
        rf"{NUMBER} with all four",
        digits,
    ),
    "an image of digits": (
        "README.md",
        rf"one image is {NUMBER} points",
        lambda: [f"{100 / 360:.2f}"],
    ),
    "Fashion-MNIST": (
        "results/README.md",
        rf"after three epochs: {NUMBER}% \(top-5: {NUMBER}%\)",
        lambda: [
            f"{metrics('fashion_mnist_vgg16_narrow')[-1][key]:.2f}"
            for key in ("top1_error", "top5_error")
        ],
    ),
    "200 steps": (
        "results/README.md",
        rf"Training loss {NUMBER} \(mean of the 200 steps\), test error {NUMBER}%",
        lambda: [
            f"{metrics('fashion_mnist_vgg16_200_steps')[-2]['loss']:.3f}",
            f"{metrics('fashion_mnist_vgg16_200_steps')[-1]['top1_error']:.2f}",
        ],
    ),
    "bfloat16": ("results/README.md", r"memory is (\.\d+) and (\.\d+) of float32", of_bfloat16),
    "ResNet-101": (
        "results/README.md",
        rf"dropout takes {NUMBER} of baseline's memory \(.*?\), the tree {NUMBER} .*? classifier "
        rf"three times: {NUMBER} MiB",
        resnet101,
    ),
    "aims that are met": (
        "results/README.md",
        rf"On VGG-16 L_mid \({NUMBER}\) and L_kernel \({NUMBER}\) meet their own, on ResNet-18 "
        rf"L_mid \({NUMBER}\) and L_out \({NUMBER}\); all four take {NUMBER} and {NUMBER} of "
        rf"baseline's memory "
        rf"and {NUMBER} and {NUMBER} of its FLOPs, .*?pool=8` {NUMBER} and {NUMBER} of its memory",
        lambda: [
            *plan("vgg16", "peak / baseline", "mid", "kernel"),
            *plan("resnet18", "peak / baseline", "mid", "out"),
            *both("peak / baseline", ALL),
            *both("FLOPs / baseline", ALL),
            *both("peak / baseline", f"{ALL} (pull_push.projection_pool=8)"),
        ],
    ),
    "heads computed anew": (
        "results/README.md",
        rf"With `model.remat_heads` they take {NUMBER} and {NUMBER} of its memory and {NUMBER} and "
        rf"{NUMBER} of its FLOPs .*? on an RTX 2080 Ti \({NUMBER} and {NUMBER}\) and an A100 "
        rf"\({NUMBER} and {NUMBER}\) too",
        lambda: [
            *both("peak / baseline", HEADS, name="plan_remat.md"),
            *both("FLOPs / baseline", HEADS, name="plan_remat.md"),
            *both("peak / baseline", HEADS, name="plan_rtx2080ti.md"),
            *both("peak / baseline", HEADS, name="plan_a100.md"),
        ],
    ),
    "heads computed anew, on the page of costs": (
        "docs/costs.md",
        rf"with it all four plan {NUMBER} of baseline's memory on VGG-16 and {NUMBER} on "
        rf"ResNet-18, for {NUMBER} and {NUMBER} of its FLOPs\. - `model.remat` computes",
        lambda: two(
            [
                *both("peak / baseline", HEADS, name="plan_remat.md"),
                *both("FLOPs / baseline", HEADS, name="plan_remat.md"),
            ]
        ),
    ),
    "other cards, on the page of costs": (
        "docs/costs.md",
        rf"all four take about as much: {NUMBER} and {NUMBER} of baseline's memory on an RTX 2080 "
        rf"Ti, {NUMBER} and {NUMBER} on an A100",
        lambda: two(other_cards()),
    ),
    "other cards": (
        "results/README.md",
        rf"where all four take {NUMBER} and {NUMBER} of baseline's memory on VGG-16 and "
        rf"ResNet-18, and "
        rf"for an A100: {NUMBER} and {NUMBER}\.",
        other_cards,
    ),
    "rematerialised": (
        "results/README.md",
        rf"anew as well: all four take {NUMBER} and {NUMBER} of plain baseline's memory and "
        rf"{NUMBER} and "
        rf"{NUMBER} of its FLOPs\. Baseline with `model.remat` takes {NUMBER} and {NUMBER} of "
        rf"its own memory without: like with like all four take {NUMBER} and {NUMBER}\.",
        lambda: [*rematerialised(ALL, "baseline"), *like_with_like()],
    ),
    "rematerialised, on the page of costs": (
        "docs/costs.md",
        rf"again as well: with it all four plan {NUMBER} of baseline's memory on VGG-16 and "
        rf"{NUMBER} on "
        rf"ResNet-18, for {NUMBER} and {NUMBER} of its FLOPs; baseline itself then plans "
        rf"{NUMBER} and {NUMBER} of it",
        lambda: two(rematerialised(ALL, "baseline")),
    ),
    "what holds the memory": (
        "results/README.md",
        rf"VGG-16, out \| 1.01 \| {NUMBER} .*?VGG-16, mid \| 1.09 \| {NUMBER} .*?VGG-16, all four "
        rf"\| 1.15 \| {NUMBER} .*?pool=8` \| 1.15 \| {NUMBER} .*?ResNet-18, mid \| 1.09 \| "
        rf"{NUMBER} .*?kernel \| 1.03 \| {NUMBER} .*?ResNet-18, all four \| 1.2 \| {NUMBER} .*?"
        rf"pool=8` \| 1.2 \| {NUMBER} \|",
        memory_of_parts,
    ),
    "idle device": ("results/README.md", rf"was at most {NUMBER}%", idle),
    "beside PyTorch": (
        "results/README.md",
        rf"on this machine: {NUMBER} of its median",
        beside_torch,
    ),
    "time and FLOPs": (
        "results/README.md",
        rf"`out` below it \({NUMBER} at {NUMBER}\) and `mid` above \({NUMBER} at {NUMBER}\)",
        lambda: steps("out", "mid"),
    ),
    "read inside and outside": (
        "results/README.md",
        rf"in turn on one core of two: {NUMBER} of its time with `mid`, {NUMBER} with `pull_push`, "
        rf"{NUMBER} with all four; and {NUMBER} with baseline",
        inside,
    ),
    "waiting for gradients": (
        "results/README.md",
        rf"before, in turn on an idle core: {NUMBER} of its time with baseline, {NUMBER} with "
        rf"`mid`, {NUMBER} with all four",
        lambda: of_version("step_waiting.md", "waiting", "baseline", "mid", ALL),
    ),
    "time and FLOPs of narrow steps": (
        "results/README.md",
        rf"met by `out` \({NUMBER} at {NUMBER}\) and `kernel` \({NUMBER} at {NUMBER}\) and "
        rf"missed by `mid` \({NUMBER} at {NUMBER}\), `pull_push` \({NUMBER} at {NUMBER}\) and all "
        rf"four \({NUMBER} at {NUMBER}\)",
        lambda: steps("out", "kernel", "mid", "pull_push", ALL, name="step_narrow.md"),
    ),
    "before the first step": (
        "results/README.md",
        rf"idle core: {NUMBER} s on the clock for baseline and {NUMBER} s for all four terms where "
        rf"the program is compiled already, {NUMBER} and {NUMBER} s where it is not.*?version "
        rf"before \(9c5321e\) took {NUMBER} and {NUMBER} s",
        starts,
    ),
    "clocks of the study": (
        "results/README.md",
        rf"The clocks of all {NUMBER} runs add up to {NUMBER} s, {NUMBER} hours",
        clocks,
    ),
    "reliability": ("results/README.md", rf"came of it. {NUMBER} minutes beside", minutes),
}


def told(text: str, pattern: str) -> list[str]:
    found = re.search(pattern, text)
    assert found, "the words have another form"
    return [*found.groups()]


def words(page: str) -> str:
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("claim", CLAIMS)
def test_words_hold_what_the_tables_say(claim):
    page, pattern, expected = CLAIMS[claim]
    assert told(words(page), pattern) == expected()


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_changed_figure_is_found(claim):
    page, pattern, expected = CLAIMS[claim]
    text = words(page)
    found = re.search(pattern, text)
    assert found
    for group in range(1, len(found.groups()) + 1):
        place = found.end(group) - 1
        changed = f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}"
        assert told(changed, pattern) != expected()


@pytest.mark.parametrize("method", ["baseline", "out", "mid", "pull_push", "kernel"])
def test_the_weights_chosen_are_the_best_of_their_search(method):
    search = json.loads((RESULTS / "searches" / f"small_fashion_mnist_{method}.json").read_text())
    row = rows("README.md", "## Weights for small data")[method]
    key = row["key"].strip("`")
    complete = [trial for trial in search["trials"] if trial["state"] == "complete"]
    found = {f"{x['parameters'][key]:.2g}": f"{x['validation_error']:.2f}" for x in complete}
    best, *others = sorted(found, key=lambda value: float(found[value]))
    assert (row["chosen"], row["validation error %"]) == (best, found[best])
    told = re.findall(r"([\d.]+) at ([\d.]+)", row["other trials that ran to the end"])
    assert sorted(told) == sorted((found[value], value) for value in others)


@pytest.mark.parametrize(
    "page",
    ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))],
)
def test_pages_name_files_of_results_that_are_there(page):
    for name in re.findall(r"\(?(?:\.\./)*(results/[\w./-]+\w)", (ROOT / page).read_text()):
        assert (ROOT / name).exists(), name


def test_every_verdict_of_the_reliability_tables_is_ok():
    verdicts = re.findall(r"^\| (?!what|kind|--).*\| (\S+) \|$", reliability(), re.M)
    assert len(verdicts) > 10 and set(verdicts) == {"ok"}


def test_tests_that_hold_a_kind_are_there():
    for name in re.findall(r"`(tests/[\w/]+\.py)`", reliability()):
        assert (ROOT / name).is_file(), name
