"""The words of the pages on trained-out networks beside the kept runs."""

import re
from decimal import ROUND_HALF_UP, Decimal

import evidence_tables
import numpy as np
import pytest
from kept_runs import BEST, RESULTS, errors, last_line, paired, words

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


def test_the_likelihood_beside_the_longer_baseline_is_told():
    found = {c: last_line("cifar10", c, "clean labels", "loss") for c in (BEST, LONGER)}
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
    training = {
        column: list(last_line("cifar10", column, row, "top1_error", "train").values())
        for column in ("baseline", LONGER)
    }
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
            figures.append(last_line("cifar10_auxiliary", column, row, "calibration_error"))
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
    assert bold[1].count("**") == 2 and bold[1].endswith(", 0.089 |")
    assert "-0.52 [-2.84, +1.81]" in rows[f"| {PEOPLE}", "baseline, twice as wide"]
    assert "with people's labels it is not shown to end below (-.52)" in page
    assert "with people's labels .52 points (-2.84 to +1.81)" in words("docs/worth.md")
    methods = {kind: {key[1] for key in rows if key[0] == f"| {kind}"} for kind in (CLEAN, PEOPLE)}
    assert methods[CLEAN] == methods[PEOPLE] and len(methods[CLEAN]) == 8


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


def people_s_row(name):
    text = (RESULTS / "cifar10" / f"{name}.md").read_text().partition("## people's labels")[2]
    header, row = (
        line.split(" | ")
        for line in text.splitlines()
        if line.startswith(("| row |", "| people's labels | mid+pull_push+kernel"))
    )
    return {name.strip(" |"): cell.strip(" |") for name, cell in zip(header, row, strict=True)}


def test_what_a_combination_changes_with_people_s_labels_is_told():
    page, inside, corrupted = (
        words("results/README.md"),
        *map(people_s_row, ("inside", "corruptions")),
    )
    assert "by 2.52 points less on the last layer" in page and "<br>-2.52 [" in inside["probe 13"]
    assert "and by 1.76 on the tenth" in page and "<br>-1.76 [" in inside["probe 10"]
    assert "correlation (-.64) does" in page and "<br>-0.64 [" in inside["filters"]
    told = "falls by {} points, on noisy ones by {} and on clean ones by {}, of which the first"
    found = [re.findall(r"<br>-([\d.]+) \[", corrupted[of])[0] for of in ("blur", "noise", "none")]
    assert told.format(*found) in page
    stands = [inside["filters"], corrupted["blur"], corrupted["none"]]
    assert all(float(cell.rpartition(" ")[2]) < 0.05 for cell in stands)
    fails = [inside["probe 10"], inside["probe 13"], corrupted["noise"]]
    assert all(float(cell.rpartition(" ")[2]) > 0.05 for cell in fails)
