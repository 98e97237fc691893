"""What devices send each other in a step that is split over them, read from a compiled program."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collab_jax.benchmark.gpus import GPUS
from collab_jax.benchmark.markdown import heading, table

__all__ = ["Collective", "collectives", "collectives_markdown", "summary"]

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_LINE = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})(-start)?\(")
_ARRAY = re.compile(r"(pred|[a-z]+\d+)\[([\d,]*)\]")
_FEATURE_MAP_RANK = 4


@dataclass(frozen=True)
class Collective:
    """One operation: its kind, and the shape and bytes of each array that a device puts in."""

    kind: str
    arrays: tuple[tuple[tuple[int, ...], int], ...]

    @property
    def size(self) -> int:
        """Bytes that one device puts in."""
        return sum(size for _, size in self.arrays)


def collectives(text: str) -> list[Collective]:
    """The collective operations of an optimised program, in its order.

    Args:
      text: the program's text.

    Returns:
      One entry each.
    """
    found = []
    for line in text.splitlines():
        match = _LINE.search(line)
        if match is None:
            continue
        result, kind, start = match.groups()
        arrays = [_shape_and_size(*array) for array in _ARRAY.findall(result)]
        if start and result.startswith("("):
            arrays = arrays[: len(arrays) // 2]  # what goes in, then what comes out
        found.append(Collective(kind, tuple(arrays)))
    return found


def _shape_and_size(dtype: str, dimensions: str) -> tuple[tuple[int, ...], int]:
    shape = tuple(int(number) for number in dimensions.split(",") if number)
    bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype))
    size = bits // 8
    for number in shape:
        size *= number
    return shape, size


def summary(found: Sequence[Collective]) -> dict[str, Any]:
    """Counts and bytes by kind, and the feature maps among what is gathered."""
    return {
        **{
            kind: {
                "count": sum(one.kind == kind for one in found),
                "bytes": sum(one.size for one in found if one.kind == kind),
            }
            for kind in _KINDS
        },
        "gathered_feature_maps": sum(
            len(shape) >= _FEATURE_MAP_RANK
            for one in found
            if one.kind == "all-gather"
            for shape, _ in one.arrays
        ),
    }


def collectives_markdown(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The table of what each method sends.

    Args:
      rows: plans whose `collectives` are `summary`'s.
      command: what made them.

    Returns:
      The text.
    """
    first = rows[0]
    side = first["image_size"]
    about = (
        f"{first['model']}, {first['batch_size']} x {first['channels']} x {side} x {side} over "
        f"{first['devices']} x {GPUS[first['gpu']].name}, {first['dtype']}: number of operations "
        "and KiB that one device puts in. Planned by XLA for the GPUs, not run on any."
    )
    columns = (
        *("method", "parameters KiB", *_KINDS),
        *("more than baseline KiB", "gathered feature maps"),
    )
    total = {id(row): sum(row["collectives"][kind]["bytes"] for kind in _KINDS) for row in rows}
    cells = []
    for row in rows:
        sent = row["collectives"]
        cells.append(
            (
                row["method"],
                f"{(row['params_bytes'] + row['heads_bytes']) / 1024:,.0f}",
                *(f"{sent[kind]['count']}: {sent[kind]['bytes'] / 1024:,.0f}" for kind in _KINDS),
                f"{(total[id(row)] - total[id(first)]) / 1024:,.0f}",
                sent["gathered_feature_maps"],
            )
        )
    lines = heading("What devices send each other in a train step", about, command)
    return "\n".join(lines + table(columns, cells)) + "\n"
