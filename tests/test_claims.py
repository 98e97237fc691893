"""The words of README and docs/worth.md on the small-data studies beside the kept runs."""

import json
import re

import evidence_tables
import made_blocks
import numpy as np
import pytest
import small_data_tables
from kept_runs import BEST, RESULTS, ROOT, errors, paired, words


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


def test_readme_tells_where_the_combination_loses():
    told = []
    for study in ("ablations", "noise_compute"):
        test = paired(errors(study, BEST), errors(study, f"baseline for {BEST}'s FLOPs"))
        low, high = test.confidence_interval()
        told.append(f"{(low + high) / 2:.1f}")
    expected = "is ahead of it by {} points, and by {} with label noise .5.".format(*told)
    assert expected in words("README.md")
