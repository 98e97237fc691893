"""The words of README and docs/worth.md on the studies beside the kept runs."""

import json
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import evidence_tables
import made_blocks
import numpy as np
import pytest
import small_data_tables
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
BEST = "out+mid+pull_push"


def words(path):
    """A page's text on one line."""
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


def errors(study, column, row=None, name="last_test_error"):
    """Errors by seed, read here without the report's code."""
    content = json.loads((RESULTS / study / "study.json").read_text())
    cells = [cell for table in content["tables"] for cell in table["cells"]]
    (cell, *_) = [c for c in cells if c["column"] == column and row in (None, c["row"])]
    found = {}
    for run in cell["runs"]:
        path = RESULTS / study / run["path"] / "result.json"
        if path.exists():
            found[run["seed"]] = json.loads(path.read_text())[name]
    return found


def last_test(study, column, row, name):
    """A figure of the last test line by seed."""
    content = json.loads((RESULTS / study / "study.json").read_text())
    cells = [cell for table in content["tables"] for cell in table["cells"]]
    (cell,) = [c for c in cells if (c["row"], c["column"]) == (row, column)]
    found = {}
    for run in cell["runs"]:
        lines = (RESULTS / study / run["path"] / "metrics.jsonl").read_text().splitlines()
        tests = [line for line in map(json.loads, lines) if line["split"] == "test"]
        found[run["seed"]] = tests[-1][name]
    return found


def paired(ours, theirs):
    seeds = sorted(set(ours) & set(theirs))
    first, second = ([values[seed] for seed in seeds] for values in (ours, theirs))
    return stats.ttest_rel(first, second)


@pytest.mark.parametrize("tool", [small_data_tables, evidence_tables])
def test_the_pages_hold_what_the_runs_say(tool):
    changes = list(made_blocks.changes(tool.FILES, tool.blocks(RESULTS)))
    told = "; ".join(path.name for path, _, _ in changes)
    assert not changes, f"python tools/{tool.__name__}.py --write: {told}"


def test_every_block_is_in_a_page():
    names = set()
    for page in small_data_tables.FILES:
        names |= set(re.findall(r"<!-- end of ([a-z ]+) -->", (ROOT / page).read_text()))
    assert names == {*small_data_tables.blocks(RESULTS), *evidence_tables.blocks(RESULTS)}


def test_a_changed_number_is_found():
    made = small_data_tables.blocks(RESULTS)
    page = (ROOT / "docs" / "worth.md").read_text()
    assert made_blocks.rewritten(page, made) == page
    assert made_blocks.rewritten(page.replace("26.0%", "25.0%"), made) == page


def test_the_claim_of_label_noise_is_that_of_the_runs():
    text = words("docs/worth.md")
    ours, base = (errors("reduced", column, "noise 0.5") for column in (BEST, "baseline"))
    found = re.search(
        r"combination ends at ([\d.]+)% test error where baseline has ([\d.]+)% \(95% interval of "
        r"the difference ([-+][\d.]+) to ([-+][\d.]+); p ([\d.]+) alone, ([\d.]+) by Holm\)",
        text,
    )
    assert found, "the claim has another form"
    mean, mean_base, low, high, p, holm = map(float, found.groups())
    test = paired(ours, base)
    interval = test.confidence_interval()
    assert [mean, mean_base] == [round(np.mean(list(x.values())), 1) for x in (ours, base)]
    assert [low, high] == [round(interval.low, 1), round(interval.high, 1)]
    assert p == round(test.pvalue, 3) and holm > 0.05
    assert "its 100 epochs cost" in text, "a claim at unequal compute has to say so"


@pytest.mark.parametrize(
    ("study", "start", "measure"),
    [
        ("ablations", "On clean labels", "FLOPs"),
        ("noise_compute", "With noise .5", "FLOPs"),
        ("noise_compute", "With noise .5", "time"),
    ],
)
def test_the_claims_at_equal_compute_are_those_of_the_runs(study, start, measure):
    text = words("docs/worth.md")
    longer, ours = errors(study, f"baseline for {BEST}'s {measure}"), errors(study, BEST)
    if not longer:
        assert f"{start} a baseline of as much {measure} has not been run." in text
        return
    found = re.search(
        rf"{re.escape(start)} a baseline that trains for the combination's {measure} ends at "
        r"([\d.]+)%(?: \(\d of 5 seeds\))?: (.*?) \(combination minus baseline ([-+][\d.]+), 95% "
        r"interval ([-+][\d.]+) to ([-+][\d.]+)",
        text,
    )
    if len(longer) == 1:
        assert not found
        return
    assert found, "the claim has another form"
    assert float(found[1]) == round(np.mean(list(longer.values())), 1)
    test = paired({seed: ours[seed] for seed in longer}, longer)
    interval = test.confidence_interval()
    expected = [np.mean([ours[s] - longer[s] for s in longer]), interval.low, interval.high]
    assert [float(found[place]) for place in (3, 4, 5)] == pytest.approx(expected, abs=0.051)
    if "better" in found[2]:
        assert interval.high < 0 and test.pvalue < 0.05
    elif "worse" in found[2]:
        assert interval.low > 0 and test.pvalue < 0.05


def test_the_words_below_the_table_are_those_of_the_table():
    text = words("results/README.md")
    rows = re.findall(r"^\| (no noise|label noise \.\d) \| (.*?) \|\n?", methods_table(), re.M)
    assert len(rows) == 17
    bold = [line for line in methods_table().splitlines() if "**" in line]
    assert [line.split(" | ")[1] for line in bold] == ["tree, 4 heads"]
    assert "The tree at .5 does, by 1.8 points" in text and "**-1.80 [" in bold[0]
    assert "Without label noise no term separates itself from baseline" in text
    detectable = [
        float(line.split(" | ")[5])
        for line in methods_table().splitlines()
        if line.startswith("| no noise") and line.split(" | ")[5].strip()
    ]
    low, high = map(float, re.findall(r"detectable differences, ([\d.]+) to ([\d.]+)", text)[0])
    assert (low, high) == (round(min(detectable), 1), round(max(detectable), 1))
    for level in ("0.2", "0.5"):
        test = paired(*(errors("reduced", c, f"noise {level}") for c in (BEST, "baseline")))
        assert test.confidence_interval().high < 0, "its interval leaves out zero"
    training = []
    for path in sorted(RESULTS.glob("reduced/*/baseline/seed-?/metrics.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        training.append([x["top1_error"] for x in lines if x["split"] == "train"][-1])
    assert f"is {np.mean(training):.1f}% at the end" in text


def methods_table():
    return small_data_tables.blocks(RESULTS)["methods"]


def test_the_ties_were_counted_and_the_earliest_was_taken_before():
    text = words("results/README.md")
    epochs = []
    for path in sorted(RESULTS.glob("reduced/*/baseline/seed-?/result.json")):
        epochs.append(json.loads(path.read_text())["best_checkpoint"]["epoch"])
    low, high = map(int, re.findall(r"kept baseline at epochs (\d+) to (\d+)", text)[0])
    assert (min(epochs), max(epochs)) == (low, high)
    ties = 0
    runs = {}
    for study in small_data_tables.STUDIES:
        for path in RESULTS.glob(f"{study}/*/*/seed-*/metrics.jsonl"):
            if (path.parent / "result.json").exists():
                runs[path.relative_to(RESULTS / study)] = path
    for path in runs.values():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found = [x["top1_error"] for x in lines if x["split"] == "validation"]
        ties += found.count(min(found)) > 1
    assert f"In {ties} of {len(runs)} runs several epochs share" in text


@pytest.mark.parametrize("page", ["README.md", *sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")
)])  # fmt: skip
def test_no_other_page_repeats_the_claim_by_itself(page):
    text = re.sub(
        r"<!-- claim -->.*<!-- end of claim -->", "", (ROOT / page).read_text(), flags=re.S
    )
    assert not re.search(r"\b(26\.0|30\.7|22\.9|19\.1)%", text)


LONGER, AUXILIARY = "baseline, twice as long", "auxiliary classifiers"
CLEAN, PEOPLE = "clean labels", "people's labels"


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (
            "mid",
            LONGER,
            "ends {-mean} points below the baseline of twice the epochs (95% interval {-high} to "
            "{-low})",
        ),
        (BEST, "mid", "within a point of out+mid+pull_push ({low} to {high})"),
        ("mid+pull_push+kernel", "mid", "that is not shown ({low} to {high})"),
        ("out", LONGER, "where the baseline of twice the epochs does ({low} to {high})"),
    ],
)
def test_the_exploratory_differences_are_those_of_the_runs(ours, theirs, told):
    test = paired(*(errors("cifar10", column, "clean labels") for column in (ours, theirs)))
    low, high = test.confidence_interval()
    figures = {"low": low, "high": high, "-low": -low, "-high": -high, "-mean": -(low + high) / 2}
    for name, value in figures.items():
        sign = "" if name.startswith("-") else "+" if value > 0 else "-"
        told = told.replace(f"{{{name}}}", sign + f"{abs(value):.2f}".removeprefix("0"))
    assert told in words("docs/worth.md")


@pytest.mark.parametrize(
    ("ours", "told"),
    [
        (BEST, "out+mid+pull_push ends {} points ({} to {})"),
        ("mid+pull_push+kernel", "mid+pull_push+kernel {} points ({} to {}) below"),
    ],
)
def test_readme_tells_the_declared_contrasts(ours, told):
    test = paired(*(errors("cifar10", column, "clean labels") for column in (ours, LONGER)))
    low, high = test.confidence_interval()
    figures = (f"{-x:.1f}".removeprefix("0") for x in ((low + high) / 2, high, low))
    assert told.format(*figures) in words("README.md")


def test_readme_tells_where_the_combination_loses():
    told = []
    for study in ("ablations", "noise_compute"):
        test = paired(errors(study, BEST), errors(study, f"baseline for {BEST}'s FLOPs"))
        low, high = test.confidence_interval()
        told.append(f"{(low + high) / 2:.1f}")
    expected = "is ahead of it by {} points, and by {} with label noise .5.".format(*told)
    assert expected in words("README.md")


def test_the_likelihood_beside_the_longer_baseline_is_told():
    found = {c: last_test("cifar10", c, "clean labels", "loss") for c in (BEST, LONGER)}
    low, high = paired(found[BEST], found[LONGER]).confidence_interval()
    mean, low, high = (f"{x:.2f}".removeprefix("0") for x in ((low + high) / 2, low, high))
    assert f"of twice the epochs, by {mean} ({low} to {high};" in words("docs/worth.md")
    assert f"(+{mean} [+{low}, +{high}]," in words("results/README.md")
    assert f"longer baseline's (clean labels, by {mean})" in words("README.md")


def test_half_the_rate_is_told_as_it_was_run():
    found = {column: errors("cifar10_rate", column) for column in ("baseline", LONGER, "mid", BEST)}
    assert {tuple(values) for values in found.values()} == {tuple(range(6))}
    base = found["baseline"]

    def told(ours, theirs, form="{} ({} to {})"):
        test = paired(found[ours], theirs)
        assert test.pvalue < 0.05
        low, high = sorted(abs(x) for x in test.confidence_interval())
        figures = (f"{x:.2f}".removeprefix("0") for x in ((low + high) / 2, low, high))
        return form.format(*figures)

    text = words("docs/worth.md")
    assert f"Baseline ends at {np.mean(list(base.values())):.2f}% there" in text
    assert told(LONGER, base, "(+{}, {} to {}: it is worse by them)") in text
    assert f"`mid` ends {told('mid', base, '{} points ({} to {})')} and out+mid+pull_push" in text
    assert f"out+mid+pull_push {told(BEST, base)} below it," in text
    beside = [told(method, found[LONGER]) for method in ("mid", BEST)]
    assert f"below it, {' and '.join(beside)} below the baseline of twice the epochs." in text
    tables = evidence_tables.blocks(RESULTS)
    rows = [
        line
        for name in ("half the rate", "half the rate directly")
        for line in tables[name].splitlines()
        if "**" in line
    ]
    assert len(rows) == 5 and "All five withstand Holm's method, .040 at most;" in text
    assert sum("/ 0.0625 |" in line for line in rows) == 2
    assert max(float(line.split(" / ")[1]) for line in rows) == 0.04
    means = [
        abs(
            paired(found[m], base).confidence_interval().low
            + paired(found[m], base).confidence_interval().high
        )
        / 2
        for m in ("mid", BEST)
    ]
    expected = "`mid` and out+mid+pull_push end {:.1f} and {:.1f} points below it.".format(*means)
    assert expected in words("README.md")


def test_redrawn_noise_is_told_as_it_was_run():
    row = "redrawn noise .5"
    found = {c: errors("cifar10", c, row) for c in ("baseline", LONGER, BEST)}
    best, longer, direct = (
        paired(found[ours], found[theirs])
        for ours, theirs in ((BEST, "baseline"), (LONGER, "baseline"), (BEST, LONGER))
    )

    def figures(test, form):
        low, high = test.confidence_interval()
        values = ((low + high) / 2, low, high)
        return form.format(*(f"{x:.1f}".removeprefix("0").replace("-0.", "-.") for x in values))

    def below(test, form):
        low, high = test.confidence_interval()
        return form.format(*(f"{-x:.1f}" for x in ((low + high) / 2, high, low)))

    text = words("docs/worth.md")
    assert below(best, "ends {} points ({} to {}) below baseline") in text
    assert below(longer, "twice the epochs bring {} ({} to {}):") in text
    assert figures(direct, "is not shown there ({}, {} to +{};") in text
    assert direct.pvalue > 0.05 > max(best.pvalue, longer.pvalue)
    study = json.loads((RESULTS / "cifar10" / "study.json").read_text())
    training = {}
    for cell in study["tables"][2]["cells"]:
        assert cell["row"] == row
        for run in cell["runs"]:
            lines = (RESULTS / "cifar10" / run["path"] / "metrics.jsonl").read_text().splitlines()
            rows = [line for line in map(json.loads, lines) if line["split"] == "train"]
            training.setdefault(cell["column"], []).append(rows[-1]["top1_error"])
    *_, fifth, most = sorted(training["baseline"])
    told = f"two of the six baselines err on {fifth:.0f} and {most:.0f}% of it"
    low, high = min(training[LONGER]), max(training[LONGER])
    assert f"{told} in the last epoch" in words("results/README.md")
    assert f"after twice the epochs all err on {low:.0f} to {high:.0f}%" in words(
        "results/README.md"
    )
    assert sorted(training["baseline"])[3] < 48 < fifth
    short = "gains {:.1f} points and twice the epochs {:.1f},".format(
        *(-(sum(test.confidence_interval()) / 2) for test in (best, longer))
    )
    assert short in words("README.md")


@pytest.mark.parametrize(
    ("page", "ours", "theirs", "row", "told"),
    [
        ("results/README.md", "mid", "baseline", CLEAN, "by {less} points, and by as much"),
        ("results/README.md", LONGER, "baseline", CLEAN, "calls none ({low} to +{high})"),
        ("results/README.md", "mid", "baseline", PEOPLE, "`mid` ends {less} points below"),
        ("results/README.md", AUXILIARY, "baseline", CLEAN, "end {less} and 1.25 points"),
        ("results/README.md", AUXILIARY, "baseline", PEOPLE, "end 2.85 and {less} points"),
        ("results/README.md", AUXILIARY, "mid", CLEAN, "their error is {less} lower on"),
        ("results/README.md", AUXILIARY, "mid", PEOPLE, "and {mean} higher on people's"),
        ("README.md", "mid", LONGER, CLEAN, "`mid` ends {less} points ({least} to {most}) below"),
        ("README.md", AUXILIARY, LONGER, CLEAN, "end {less} ({least} to {most}) below it"),
        ("docs/worth.md", "mid", LONGER, CLEAN, "further seeds `mid` does by {less}"),
        ("README.md", AUXILIARY, "mid", CLEAN, "is shown ({mean}, from {low} to +{high})"),
        ("docs/worth.md", AUXILIARY, "mid", CLEAN, "{less} points below it ({low} to +{high})"),
        ("docs/worth.md", AUXILIARY, "mid", PEOPLE, "{mean} above ({low} to +{high})"),
        ("docs/worth.md", LONGER, "baseline", CLEAN, "nothing that is shown ({low} to +{high})"),
    ],
)
def test_the_new_seeds_are_told_as_they_were_run(page, ours, theirs, row, told):
    found = [errors("cifar10_auxiliary", column, row) for column in (ours, theirs)]
    assert [set(x) for x in found] == [set(range(6, 12))] * 2
    low, high = paired(*found).confidence_interval()
    mean = np.mean([found[0][seed] - found[1][seed] for seed in found[0]])
    figures = {"mean": mean, "low": low, "high": high, "less": -mean, "least": -high, "most": -low}
    for name, value in figures.items():
        half_up = Decimal(str(round(value, 6))).quantize(Decimal("0.01"), ROUND_HALF_UP)
        told = told.replace(f"{{{name}}}", re.sub(r"^(-?)0\.", r"\1.", str(half_up)))
    assert told in words(page)


def test_the_calibration_of_auxiliary_classifiers_beside_mid_is_told():
    told = []
    for row in (CLEAN, PEOPLE):
        figures = []
        for column in (AUXILIARY, "mid"):
            figures.append(last_test("cifar10_auxiliary", column, row, "calibration_error"))
        test = paired(*figures)
        assert test.pvalue < 0.05
        low, high = (-x for x in test.confidence_interval())
        told.append(((low + high) / 2, high, low))
    (clean, *ends), (people, *others) = told
    text = (
        "{:.1f} points on clean labels ({:.1f} to {:.1f}) and {:.1f} on people's ({:.1f} to {:.1f};"
    )
    expected = text.format(clean, *ends, people, *others)
    assert re.sub(r"(?<![\d])0\.", ".", expected) in words("docs/worth.md")
    expected = f"by {clean:.2f} and {people:.2f} points (Holm's p".replace(" 0.", " .")
    assert expected in words("results/README.md")


def test_the_exploratory_neighbours_are_told_as_they_were_run():
    page = words("results/README.md")
    base = errors("cifar10_exploratory", "baseline", CLEAN)
    tables = evidence_tables.blocks(RESULTS)
    rows = {tuple(line.split(" | ")[:2]): line for line in tables["exploratory"].splitlines()}
    for column, flops in ((AUXILIARY, "1.05"), ("baseline, twice as wide", "3.93")):
        found = errors("cifar10_exploratory", column, CLEAN)
        assert set(found) == {0, 1, 2}
        test, row = paired(found, base), rows[f"| {CLEAN}", column]
        holm = row.split(" / ")[1].removeprefix("0")
        alone = f"{test.pvalue:.3f}".removeprefix("0")
        less = -np.mean([found[seed] - base[seed] for seed in found])
        told = f"ends {less:.2f} points below baseline (p {alone} alone, {holm} by Holm) at {flops}"
        assert told in page, told
        assert f"| {flops} |" in row
    mid = paired(errors("cifar10_exploratory", AUXILIARY, CLEAN), errors("cifar10", "mid", CLEAN))
    low, high = mid.confidence_interval()
    assert mid.pvalue > 0.05 and f"({low:.2f} to +{high:.2f})" in page
    assert "**" not in tables["exploratory"]
    lines = tables["exploratory likelihood"].splitlines()
    bold = [line for line in lines if "**" in line]
    assert [line.split(" | ")[1] for line in bold] == ["label smoothing .1"] * 2
    assert bold[0].count("**") == 4 and "| 32.7 |" in bold[0]
    assert bold[1].count("**") == 2 and bold[1].endswith(", 0.051 |")
    people = {key[1] for key in rows if key[0] == f"| {PEOPLE}"}
    assert not people & {"tree, 4 heads", "r_drop, dropout .3", "baseline, twice as wide"}
    assert len(people) == 5


@pytest.mark.parametrize(
    ("page", "row", "column", "name", "told", "stands"),
    [
        ("inside", CLEAN, "mid", "probe 10", "gains from `mid` {less} points on the tenth", True),
        ("inside", CLEAN, "mid", "probe 13", "and {less} on the last layer's averaged", True),
        ("inside", CLEAN, "mid", "probe 6", "here, and {less} on the sixth;", False),
        ("inside", CLEAN, AUXILIARY, "probe 6", "classifiers {less} on the sixth already", True),
        ("inside", CLEAN, AUXILIARY, "probe 10", "withstands it, and {less} and 2.81", False),
        ("inside", CLEAN, AUXILIARY, "probe 13", "and 2.88 and {less} behind it", False),
        ("inside", PEOPLE, AUXILIARY, "probe 13", "on the last layer ({mean})", True),
        ("inside", PEOPLE, "mid", "probe 13", "`mid`'s there is {mean}", False),
        ("inside", PEOPLE, "mid", "probe 3", "on the third layer {mean}", False),
        ("inside", CLEAN, "mid", "filters", "`mid` (by {mean} and 1.54 hundredths)", True),
        ("inside", PEOPLE, "mid", "filters", "`mid` (by 1.45 and {mean} hundredths)", True),
        ("inside", CLEAN, AUXILIARY, "filters", "auxiliary classifiers ({mean} and -.02)", True),
        ("inside", PEOPLE, AUXILIARY, "filters", "classifiers (-.16 and {mean})", False),
        ("corruptions", CLEAN, AUXILIARY, "blur", "with clean labels ({mean})", True),
    ],
)
def test_what_is_inside_is_told_as_measured(page, row, column, name, told, stands):
    mean, holm = measured(page)[row, column, name]
    assert (holm < 0.05) == stands
    mean = re.sub(r"(?<![0-9])0\.", ".", mean)
    figures = {"mean": mean if "hundredths" not in told else mean[1:], "less": mean.lstrip("-")}
    assert told.format(**figures) in words("results/README.md")


def test_one_difference_on_corrupted_images_stands():
    found = measured("corruptions")
    assert len(found) == 25
    standing = {key for key, (_, holm) in found.items() if holm < 0.05 and key[2] != "none"}
    assert standing == {(CLEAN, AUXILIARY, "blur")}
    probes = {
        key
        for key, (_, holm) in measured("inside").items()
        if holm < 0.05 and key[0] == PEOPLE and key[2].startswith("probe")
    }
    assert probes == {(PEOPLE, AUXILIARY, "probe 13")}


def measured(page):
    """(difference, Holm's p) by row, method and figure."""
    found, names = {}, []
    for line in (RESULTS / "cifar10_auxiliary" / f"{page}.md").read_text().splitlines():
        row, *cells = line.strip("| ").split(" | ")
        if row == "row":
            names = cells[1:]
        for name, cell in zip(names, cells[1:], strict=False):
            if "Holm" in cell:
                column = cells[0].removesuffix(" (6)")
                change, holm = cell.split("<br>")[1].split()[0], cell.split("Holm ")[1]
                found[row, column, name] = change, float(holm)
    return found
