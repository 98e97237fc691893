"""Tables and words on the study of trained-out networks, written into README.md, results and docs.

Command:
    python tools/evidence_tables.py            # tells what differs, exit code 1 if anything does
    python tools/evidence_tables.py --write    # writes it

Whatever stands between `<!-- NAME -->` and `<!-- end of NAME -->` is made of the kept runs alone.
A method that has not been run with any seed has no row.
"""

from __future__ import annotations

import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from made_blocks import ROOT, keep
from small_data_tables import errors, interval, markdown, wrapped

from collab_jax.report.collect import CellData, StudyData, TableData, read_folder
from collab_jax.report.comparisons import contrasts, differences, spell_p
from collab_jax.report.costs import seconds
from collab_jax.report.statistics import Difference, summarise

__all__ = ["FILES", "blocks"]

FILES = ("README.md", "results/README.md", "docs/worth.md")
STUDY = "cifar10"
HALF_RATE = "cifar10_rate"
EXPLORATORY = "cifar10_exploratory"
AUXILIARY = "cifar10_auxiliary"
P_VALUES = "p / Holm / sign-flip"


def _run(cell: CellData) -> bool:
    return bool(cell.values("last"))


def _tables(study: StudyData) -> list[TableData]:
    return [table for table in study.tables if any(map(_run, table.cells))]


def _mean(cell: CellData, name: str) -> float:
    mean = summarise(list(cell.values(name).values())).mean
    assert mean is not None
    return mean


def _missing(cell: CellData) -> str:
    done = len(cell.values("last"))
    return f" ({done} of {len(cell.runs)})" if done < len(cell.runs) else ""


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value and base else ""


def _change(found: Difference | None, digits: int) -> str:
    """A difference with its interval and Holm's p, bold where that is below .05."""
    if found is None or found.mean is None or found.low is None or found.adjusted is None:
        return ""
    mean, low, high = (f"{v:+.{digits}f}" for v in (found.mean, found.low, found.high))
    text = f"{mean} [{low}, {high}], {spell_p(found.adjusted)}"
    return f"**{text}**" if found.verdict in ("better", "worse") else text


def _methods(tables: list[TableData]) -> str:
    """Errors and costs of every method."""
    rows = []
    for table in tables:
        for cell, found in zip(table.cells, differences(table, "last"), strict=True):
            base = table.at(cell.row, table.baseline)
            if not _run(cell) or base is None:
                continue
            costs = [_ratio(cell.flops, base.flops), _ratio(seconds(cell), seconds(base))]
            rows.append([cell.row, cell.column, errors(cell, "last"), *interval(found), *costs])
    header = ["labels", "method", "test error %", "difference", P_VALUES, "detectable"]
    return markdown([*header, "FLOPs", "time"], rows, 2)


def _likelihood(tables: list[TableData]) -> str:
    """Likelihood and calibration of the same predictions."""
    rows = []
    for table in tables:
        found = [differences(table, name) for name in ("loss", "calibration_error")]
        for cell, loss, calibration in zip(table.cells, *found, strict=True):
            if _run(cell):
                rows.append(
                    [
                        cell.row,
                        cell.column,
                        f"{_mean(cell, 'loss'):.2f}",
                        _change(loss, 2),
                        f"{_mean(cell, 'calibration_error'):.1f}",
                        _change(calibration, 1),
                    ]
                )
    header = ["labels", "method", "negative log-likelihood", "difference, Holm's p"]
    return markdown([*header, "calibration error %", "difference, Holm's p"], rows, 2)


def _directly(tables: list[TableData]) -> str:
    """The direct contrasts, such as with a baseline of more compute."""
    rows = [
        [ours.row, ours.column, errors(ours, "last"), other.column, errors(other, "last")]
        + interval(found)
        for table in tables
        for ours, other, found in contrasts(table, "last")
        if _run(ours) and _run(other)
    ]
    header = ["labels", "method", "its error", "beside", "its error", "difference", P_VALUES]
    return markdown([*header, "detectable"], rows, 2)


def _short(tables: list[TableData]) -> str:
    """A table for README: error, likelihood, calibration and FLOPs."""
    rows = []
    for table in tables:
        for cell, found in zip(table.cells, differences(table, "last"), strict=True):
            base = table.at(cell.row, table.baseline)
            if _run(cell) and base is not None:
                rows.append(
                    [
                        cell.row,
                        cell.column,
                        f"{_mean(cell, 'last'):.1f}{_missing(cell)}",
                        _change(found, 1),
                        f"{_mean(cell, 'loss'):.2f}",
                        f"{_mean(cell, 'calibration_error'):.0f}",
                        _ratio(cell.flops, base.flops),
                    ]
                )
    header = ["labels", "method", "test error %", "difference [95%], Holm's p"]
    return markdown([*header, "NLL", "ECE %", "FLOPs"], rows, 2)


def _tenths(value: float, sign: str = "") -> str:
    """To one digit, halves away from zero: means of errors in hundredths often are halves."""
    rounded = Decimal(str(round(value, 6))).quantize(Decimal("0.1"), ROUND_HALF_UP)
    return f"{rounded:{sign}}"


def _claim(tables: list[TableData]) -> str:
    """Which differences stand after Holm's correction, in each table, in words."""
    texts = []
    for table in tables:
        found = [
            (cell, difference)
            for cell, difference in zip(table.cells, differences(table, "last"), strict=True)
            if difference is not None and difference.n > 1
        ]
        if not found:
            continue
        (row,) = table.rows
        for verdict in ("better", "worse"):
            named = [
                f"{cell.column} by {_tenths(abs(difference.mean or 0))}"
                for cell, difference in found
                if difference.verdict == verdict
            ]
            if named:
                texts.append(f"With {row} {verdict} than baseline: {', '.join(named)} points.")
        rest = [cell.column for cell, difference in found if difference.verdict == "unclear"]
        if rest:
            texts.append(f"With {row} no difference is shown for {', '.join(rest)}.")
        for ours, other, difference in contrasts(table, "last"):
            if difference.n > 1 and difference.mean is not None:
                texts.append(
                    f"{ours.column} minus {other.column}: {_tenths(difference.mean, '+')} points "
                    f"({difference.low:+.1f} to {difference.high:+.1f}, Holm's p "
                    f"{spell_p(difference.adjusted if difference.adjusted is not None else 1)})."
                )
    return wrapped(" ".join(texts))


def blocks(results: Path) -> dict[str, str]:
    """Every block by name, from the kept runs.

    Args:
      results: the folder that holds the studies' folders.
    """
    tables, at_half_rate, exploratory, auxiliary = (
        _tables(_study(results / name)) for name in (STUDY, HALF_RATE, EXPLORATORY, AUXILIARY)
    )
    return {
        "trained out": _methods(tables),
        "trained out likelihood": _likelihood(tables),
        "trained out directly": _directly(tables),
        "trained out short": _short(tables),
        "trained out claim": _claim(tables),
        "half the rate": _methods(at_half_rate),
        "half the rate directly": _directly(at_half_rate),
        "local or not": _methods(auxiliary),
        "local or not likelihood": _likelihood(auxiliary),
        "local or not directly": _directly(auxiliary),
        "local or not claim": _claim(auxiliary),
        "exploratory": _methods(exploratory),
        "exploratory likelihood": _likelihood(exploratory),
    }


def _study(folder: Path) -> StudyData:
    study = read_folder(folder)
    assert isinstance(study, StudyData)
    return study


if __name__ == "__main__":
    sys.exit(keep("Tables of the trained-out networks.", FILES, blocks(ROOT / "results")))
