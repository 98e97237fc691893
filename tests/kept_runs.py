"""What the kept runs and pages say, read with none of the report's code."""

import json
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
BEST = "out+mid+pull_push"


def words(path):
    """A page's text on one line."""
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


def errors(study, column, row=None, name="last_test_error"):
    """Errors by seed, of the runs that are there."""
    found = {}
    for seed, folder in _runs(study, column, row):
        if (folder / "result.json").exists():
            found[seed] = json.loads((folder / "result.json").read_text())[name]
    return found


def last_line(study, column, row, name, split="test"):
    """A figure of the last line of a split by seed."""
    found = {}
    for seed, folder in _runs(study, column, row):
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        found[seed] = [line for line in lines if line["split"] == split][-1][name]
    return found


def _runs(study, column, row):
    content = json.loads((RESULTS / study / "study.json").read_text())
    cells = [cell for table in content["tables"] for cell in table["cells"]]
    (cell, *_) = [c for c in cells if c["column"] == column and row in (None, c["row"])]
    return [(run["seed"], RESULTS / study / run["path"]) for run in cell["runs"]]


def paired(ours, theirs):
    seeds = sorted(set(ours) & set(theirs))
    first, second = ([values[seed] for seed in seeds] for values in (ours, theirs))
    return stats.ttest_rel(first, second)
