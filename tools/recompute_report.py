"""Computes a report's differences once more, with none of the report's code, and compares.

Command:
    python tools/recompute_report.py runs/evidence report/report.md

Errors, likelihood and calibration of the last epoch are read from each run's metrics.jsonl; the
t-test and its interval are scipy's `ttest_rel`, the signs are gone through one by one, and Holm's
method is written out. What the report rounds may differ by half of its last digit. Exit code 1 and
a line for each number that differs or is not there.
"""

import argparse
import itertools
import json
import re
import statistics
import sys
from pathlib import Path

from scipy import stats

HEADINGS = {
    "last epoch": "top1_error",
    "negative log-likelihood": "loss",
    "calibration error %": "calibration_error",
}


def last_values(folder: Path, cell: dict, name: str) -> dict[int, float]:
    """A figure of the last test line, by seed, of the runs of a cell that are done."""
    found = {}
    for run in cell["runs"]:
        directory = folder / run["path"]
        if (directory / "result.json").exists():
            lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
            value = [line for line in lines if line["split"] == "test"][-1].get(name)
            if value is not None:
                found[run["seed"]] = value
    return found


def difference(ours: dict[int, float], theirs: dict[int, float]) -> dict[str, float]:
    """Mean, interval, p of the t-test and of all signs, over the seeds that both have."""
    seeds = sorted(ours.keys() & theirs.keys())
    values = [ours[seed] - theirs[seed] for seed in seeds]
    found = {"mean": statistics.fmean(values)}
    if len(values) < 2:
        return found
    test = stats.ttest_rel([ours[s] for s in seeds], [theirs[s] for s in seeds])
    interval = test.confidence_interval(0.95)
    limit = abs(sum(values)) * (1 - 1e-12)
    signs = list(itertools.product((1, -1), repeat=len(values)))
    flipped = [abs(sum(s * v for s, v in zip(sign, values, strict=True))) for sign in signs]
    return found | {
        "low": float(interval.low),
        "high": float(interval.high),
        "p": float(test.pvalue),
        "exact": sum(total >= limit for total in flipped) / len(signs),
    }


def holm(p: list[float]) -> list[float]:
    """Holm's adjusted p-values, by their definition."""
    order = sorted(p)
    steps = [(len(p) - rank) * value for rank, value in enumerate(order)]
    return [min(1.0, max(steps[: order.index(value) + 1])) for value in p]


def spelled(text: str) -> dict[str, float]:
    """The numbers of a difference as the report writes it."""
    number = r"([+-]?\d+\.\d+)"
    patterns = {
        "mean": rf"^{number}",
        "low": rf"\[{number},",
        "high": rf", {number}\]",
        "p": rf"<br>p <?{number},",
        "holm": rf"Holm <?{number}<br>",
        "exact": rf"sign-flip p {number}",
    }
    found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
    return {name: float(match[1]) for name, match in found.items() if match}


def tables(report: str) -> dict[str, list[list[list[str]]]]:
    """The tables below each heading of the second level: rows of cells, the header first."""
    found = {}
    for part in re.split(r"^## ", report, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        blocks = re.findall(r"(?:^\|.*\n)+", body + "\n", flags=re.MULTILINE)
        rows = [
            [[c.strip() for c in r.strip("|").split("|")] for r in b.splitlines()] for b in blocks
        ]
        found[title.strip()] = rows
    return found


def differences(blocks: list[list[list[str]]], heading: str) -> dict[tuple[str, ...], dict]:
    """The differences below a heading as they are written, by the cells that name their rows."""
    found = {}
    for header, _, *rows in blocks:
        if heading in header:
            direct = header[:3] == ["row", "first", "second"]
            place = header.index(heading) + (0 if direct else 1)
            found |= {tuple(row[: 3 if direct else 2]): spelled(row[place]) for row in rows}
    return found


def expected(folder: Path, table: dict, name: str) -> dict[tuple[str, ...], dict[str, float]]:
    """Differences to the baseline, by (row, column), and contrasts, by (row, first, second)."""
    values = {(c["row"], c["column"]): last_values(folder, c, name) for c in table["cells"]}
    pairs = {
        (row, column): (values[row, column], values.get((row, table["baseline"]), {}))
        for row, column in values
        if column != table["baseline"]
    }
    direct = {
        (row, first, second): (values[row, first], values[row, second])
        for row in dict.fromkeys(row for row, _ in values)
        for first, second in table.get("contrasts", ())
        if (row, first) in values and (row, second) in values
    }
    found = {}
    for group in (pairs, direct):
        made = {
            key: difference(*both) for key, both in group.items() if set(both[0]) & set(both[1])
        }
        tested = [key for key in made if "p" in made[key]]
        for key, p in zip(tested, holm([made[key]["p"] for key in tested]), strict=True):
            made[key]["holm"] = p
        found |= made
    return found


def compare(folder: Path, report: str) -> tuple[int, list[str]]:
    """How many numbers were compared, and what differs."""
    compared, wrong = 0, []
    written = tables(report)
    for table in json.loads((folder / "study.json").read_text())["tables"]:
        for heading, name in HEADINGS.items():
            blocks = written.get(table["title"], [])
            if name != "top1_error" and not any(heading in header for header, *_ in blocks):
                continue  # an older report
            found = differences(blocks, heading)
            for key, parts in expected(folder, table, name).items():
                for part, value in parts.items():
                    digits = {"mean": 2, "low": 2, "high": 2, "exact": 4}.get(part, 3)
                    if part in ("p", "holm") and value < 0.0005:
                        value = 0.001  # written as <0.001
                    compared += 1
                    there = found.get(key, {}).get(part)
                    if there is None or abs(there - value) > 0.501 * 10**-digits:
                        wrong.append(f"{key}, {heading}, {part}: {there}, expected {value}")
    return compared, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("report", type=Path)
    arguments = parser.parse_args()
    compared, wrong = compare(arguments.study, arguments.report.read_text())
    print("\n".join([*wrong, f"{compared} numbers compared, {len(wrong)} differ"]))
    return int(bool(wrong) or not compared)


if __name__ == "__main__":
    sys.exit(main())
