"""A study's table of figures measured on the last checkpoints, beside baseline's, by seed."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from collab_jax.errors import UserError
from collab_jax.report.statistics import compare, paired_difference

__all__ = ["main", "markdown"]

Figures = Mapping[str, float]


def markdown(table: dict, found: dict[tuple[str, str], dict[str, dict[int, float]]]) -> list[str]:
    """A table of means and paired differences.

    Args:
      table: of study.json.
      found: figure, name and seed of each (row, column); Holm's method is over the differences of
        a row, all names together.
    """
    names = list(next(iter(found.values()), {}))
    lines = [
        f"## {table['title']}",
        "",
        "| row | method | " + " | ".join(names) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    for row in dict.fromkeys(row for row, _ in found):
        columns = [column for r, column in found if r == row]
        base = found.get((row, table["baseline"]), {})
        pairs = [(c, n) for c in columns if base and c != table["baseline"] for n in names]
        differences = compare([paired_difference(found[row, c][n], base[n]) for c, n in pairs])
        spelled = {}
        for pair, d in zip(pairs, differences, strict=True):
            if d.mean is not None:
                spelled[pair] = f"<br>{d.mean:+.2f}"
            if d.low is not None:
                spelled[pair] += (
                    f" [{d.low:+.2f}, {d.high:+.2f}]<br>p {d.p:.3f}, Holm {d.adjusted:.3f}"
                )
        for column in columns:
            cells = [
                f"{np.mean(list(found[row, column][n].values())):.2f}{spelled.get((column, n), '')}"
                for n in names
            ]
            seeds = len(found[row, column][names[0]])
            lines.append(f"| {row} | {column} ({seeds}) | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main(description: str, measure: Callable[[Path], Figures]) -> int:
    """Prints a table for each of a study's, of the runs whose checkpoint is there.

    Args:
      description: what `--help` tells.
      measure: figures by name of a run directory, the same names for every run.

    Returns:
      The exit code: 1 where no run could be measured.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("study", type=Path)
    study = parser.parse_args().study
    known: dict[str, Figures] = {}
    for table in json.loads((study / "study.json").read_text())["tables"]:
        found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
        for cell in table["cells"]:
            for run in cell["runs"]:
                if not (study / run["path"] / "result.json").exists():
                    continue
                if run["path"] not in known:
                    try:
                        known[run["path"]] = measure(study / run["path"])
                    except UserError as error:
                        print(error, file=sys.stderr)
                        continue
                by_name = found.setdefault((cell["row"], cell["column"]), {})
                for name, value in known[run["path"]].items():
                    by_name.setdefault(name, {})[run["seed"]] = value
        if found:
            print("\n".join(markdown(table, found)), flush=True)
    return 0 if known else 1
