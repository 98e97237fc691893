"""What programs other than training made, for the report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collab_jax.report.blocks import Block, Code, Heading, Table, Text

__all__ = ["program_blocks"]

# The paper's names of what the plan calls by its methods.
_METHODS = {
    "baseline": "baseline",
    "tree": "tree_4_heads",
    "out": "hierarchical_dropout_4_predictions",
}


def program_blocks(program: Mapping[str, Any], folder: Path) -> Iterator[Block]:
    """A plan of memory beside the paper's figures.

    Args:
      program: its entry in `study.json`.
      folder: the study's.
    """
    yield Heading(2, program["title"])
    yield Code(program["command"])
    try:
        plan = json.loads((folder / f"{program['name']}.json").read_text())
        rows = plan["rows"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        yield Text(f"missing: {program['product']} is not there yet.")
        return
    yield Text(f"Figures {plan.get('note', '')}.")
    paper = program["paper"]
    base = next((row for row in rows if row["method"] == "baseline"), None)
    table = []
    for row in rows:
        published = paper.get(_METHODS.get(row["method"], ""))
        cells = [row["method"], row["gpu"], f"{row['peak_bytes'] / 1e9:.2f}"]
        cells.append(f"{row['peak_bytes'] / base['peak_bytes']:.3f}" if base else "")
        cells.append("" if published is None else f"{published:.2f}")
        cells.append("" if published is None else f"{published / paper['baseline']:.3f}")
        table.append(cells)
    header = ["method", "GPU", "planned GB", "/ baseline", "paper GB", "paper / baseline"]
    yield Table(header, table, first=2)
