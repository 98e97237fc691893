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
