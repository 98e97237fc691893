"""What the cells of a table cost beside their baseline: FLOPs, and time by throughput."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from collab_jax.report.blocks import Block, Heading, Table, Text
from collab_jax.report.collect import CellData, RunData, TableData

__all__ = ["cost_blocks", "seconds"]


def seconds(cell: CellData) -> float | None:
    """Time that a run of the cell trains for: its images by its throughput, median over seeds.

    The throughput of a run is the median over its epochs, the first, which compiles, left out.
    """
    found = [value for run in cell.runs if (value := _run_seconds(run)) is not None]
    return statistics.median(found) if found else None


def _run_seconds(run: RunData) -> float | None:
    lines = [line for line in run.metrics if line["split"] == "train"]
    rates = [rate for line in lines[1:] if (rate := line.get("images_per_second"))]
    batch_size = run.config.get("batch_size")
    if run.result is None or not rates or not isinstance(batch_size, int):
        return None
    return lines[-1]["step"] * batch_size / statistics.median(rates)


def cost_blocks(table: TableData) -> Iterator[Block]:
    """FLOPs and time of whole runs over the baseline's; nothing where neither is known."""
    rows = []
    for cell in table.cells:
        base = table.at(cell.row, table.baseline)
        if base is None:
            continue
        times = seconds(cell), seconds(base)
        counted, measured = _ratio(cell.flops, base.flops), _ratio(*times)
        if counted or measured:
            epochs = cell.runs[0].config.get("epochs", "")
            rows.append([cell.row, cell.column, str(epochs), counted, measured])
    if not rows:
        return
    yield Heading(3, "Compute")
    yield Text(
        "FLOPs of a whole run as XLA counts them, and its time by throughput, over the baseline's. "
        "They are not the same: the narrower the network, the further they part. Other work on "
        "the machine changes times, not FLOPs."
    )
    header = ["row", "column", "epochs", "FLOPs / baseline's", "time / baseline's"]
    yield Table(header, rows, first=2)


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value and base else ""
