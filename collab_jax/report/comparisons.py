"""The differences of a table, adjusted for those that stand beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from collab_jax.report.blocks import Block, Heading, Table, Text
from collab_jax.report.collect import MEASURES, PROTOCOLS, CellData, TableData
from collab_jax.report.statistics import Difference, compare, paired_difference

__all__ = ["contrast_blocks", "contrasts", "differences", "has_measure", "spell", "spell_p"]


def differences(
    table: TableData, name: str, tables: Sequence[TableData] = ()
) -> list[Difference | None]:
    """Each cell's paired difference to the baseline, Holm's method over those of the table.

    Args:
      table: the table.
      name: a key of `PROTOCOLS` or `MEASURES`.
      tables: where a row's baseline is looked for if the table has none.

    Returns:
      One for each cell of the table, None for a baseline.
    """
    bases = [_baseline(cell, table, tables) for cell in table.cells]
    compared = [
        (place, paired_difference(cell.values(name), base.values(name) if base else {}))
        for place, (cell, base) in enumerate(zip(table.cells, bases, strict=True))
        if base is not cell
    ]
    found: list[Difference | None] = [None] * len(table.cells)
    adjusted = compare([difference for _, difference in compared])
    for (place, _), difference in zip(compared, adjusted, strict=True):
        found[place] = difference
    return found


def _baseline(cell: CellData, table: TableData, tables: Sequence[TableData]) -> CellData | None:
    """The cell that a cell is compared with: of its own table, or of another with the same row."""
    for candidate in (table, *tables):
        found = candidate.at(cell.row, table.baseline)
        if found is not None:
            return found
    return None


def contrasts(table: TableData, name: str) -> list[tuple[CellData, CellData, Difference]]:
    """The table's direct contrasts, Holm's method over them.

    Args:
      table: the table.
      name: a key of `PROTOCOLS` or `MEASURES`.

    Returns:
      Cell, the cell that it is compared with, and the first minus the second.
    """
    pairs = [
        (ours, other)
        for row in table.rows
        for first, second in table.contrasts
        if (ours := table.at(row, first)) and (other := table.at(row, second))
    ]
    found = compare([paired_difference(a.values(name), b.values(name)) for a, b in pairs])
    return [(a, b, difference) for (a, b), difference in zip(pairs, found, strict=True)]


def contrast_blocks(table: TableData) -> Iterator[Block]:
    """The direct contrasts as a table, nothing where the study asks for none."""
    measured = {name: title for name, title in MEASURES.items() if has_measure(table, name)}
    titles = {**{name: title for name, (_, title) in PROTOCOLS.items()}, **measured}
    found = {name: contrasts(table, name) for name in titles}
    if not found["last"]:
        return
    yield Heading(3, "Direct contrasts")
    yield Text("The first minus the second; below zero the first is better.")
    header = ["row", "first", "second", *titles.values()]
    rows = []
    for place, (ours, other, _) in enumerate(found["last"]):
        texts = [spell(found[name][place][2]) for name in titles]
        rows.append([ours.row, ours.column, other.column, *texts])
    yield Table(header, rows, first=3)


def has_measure(table: TableData, name: str) -> bool:
    """Whether any run of a table has a key of `MEASURES`."""
    return any(cell.values(name) for cell in table.cells)


def spell_p(p: float) -> str:
    """A p-value to three digits after the point."""
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def spell(found: Difference) -> str:
    """A difference with all that is needed to judge it, a line each."""
    if found.mean is None:
        return "missing"
    if found.low is None or found.high is None or found.p is None:
        return f"{found.mean:+.2f}\n1 seed, no interval"
    adjusted = found.p if found.adjusted is None else found.adjusted
    return (
        f"{found.mean:+.2f}\n[{found.low:+.2f}, {found.high:+.2f}]\n"
        f"p {spell_p(found.p)}, Holm {spell_p(adjusted)}\nsign-flip p {found.exact:.4f}\n"
        f"detectable {found.detectable:.2f}\n{found.verdict} ({found.n})"
    )
