"""What holds the planned memory of a train step at its peak, from XLA's buffer assignment."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collab_jax.benchmark.markdown import heading, table
from collab_jax.benchmark.plan import NOTE

__all__ = ["PARTS", "Value", "at_peak", "by_part", "held_markdown", "read_values"]

_MIB = 2**20
_RANGE = re.compile(r"^    (\S+?\{[\d,]*\}):(\d+)-(\d+)$", re.MULTILINE)
_VALUE = re.compile(r"value: <\d+ (\S+?)(\{[\d,]*\})? @\d+> \(size=(\d+),offset=\d+\): (\S+)")
_NAME = re.compile(r"^\s+(?:ROOT )?%?(\S+) = .*?op_name=\"([^\"]*)\"", re.MULTILINE)
PARTS = {
    "heads": r"jvp\(mid\)|read_mid\b",
    "projections": r"jvp\(pull_push\)|read_pull_push\b",
    "L_kernel": r"jvp\(kernel\)",
    "backward pass": r"transpose\(jvp\(trunk",
    "forward pass": r"jvp\(trunk",
    "other": "",
}
"""Parts of a step, each with the pattern of its operations' names; the first that fits counts.

Weights in another layout and gradients' copies have names of no part and are other."""


@dataclass(frozen=True)
class Value:
    """A temporary array of the program: its bytes, when it lives, and the operation's name."""

    size: int
    first: int
    last: int
    shape: str
    operation: str


def read_values(folder: Path) -> list[Value]:
    """The temporary arrays of the train step that XLA dumped as text.

    Args:
      folder: what `--xla_dump_to` named.

    Returns:
      One entry each; arrays of the state, which live throughout, are not among them.
    """

    def text(ending: str) -> str:
        (path,) = folder.glob(f"*train_step*{ending}")
        return path.read_text()

    ranges = {
        name: (int(first), int(last))
        for name, first, last in _RANGE.findall(text("-live-range.txt"))
    }
    names = dict(_NAME.findall(text("gpu_after_optimizations.txt")))
    allocations = re.split(r"^allocation \d+: ", text("-buffer-assignment.txt"), flags=re.MULTILINE)
    (temporary,) = (a for a in allocations if "preallocated-temp" in a.partition("\n")[0])
    return [
        Value(int(size), *ranges[f"{name}{member or '{}'}"], shape, names.get(name, ""))
        for name, member, size, shape in _VALUE.findall(temporary)
    ]


def at_peak(values: Sequence[Value]) -> list[Value]:
    """The values that are alive when most bytes are."""
    changes: dict[int, int] = {}
    for value in values:
        changes[value.first] = changes.get(value.first, 0) + value.size
        changes[value.last + 1] = changes.get(value.last + 1, 0) - value.size
    alive = most = 0
    moment = 0
    for time in sorted(changes):
        alive += changes[time]
        if alive > most:
            most, moment = alive, time
    return [value for value in values if value.first <= moment <= value.last]


def by_part(values: Sequence[Value]) -> dict[str, int]:
    """Bytes of the values of each part of the step."""
    sizes = dict.fromkeys(PARTS, 0)
    for value in values:
        part = next(name for name, pattern in PARTS.items() if re.search(pattern, value.operation))
        sizes[part] += value.size
    return sizes


def held_markdown(rows: Sequence[dict[str, Any]], title: str, command: str) -> str:
    """The table of what each method's peak consists of, beside baseline's.

    Args:
      rows: plans with `held`, the bytes of each part; the first is what others are compared with.
      title: the model, the batch and the GPU.
      command: what made them.

    Returns:
      The text.
    """
    about = (
        f"{title}; figures {NOTE}. MiB that are alive when most temporary memory is, by the part "
        "of the step that made them, and training-only parameters with their momentum. In "
        "brackets: more than the first row."
    )

    def parts(row: dict[str, Any]) -> dict[str, int]:
        return {"training-only": row["state_bytes"] - rows[0]["state_bytes"], **row["held"]}

    first = parts(rows[0])
    cells = [
        (
            row["name"],
            *(
                f"{size / _MIB:.1f} ({(size - first[name]) / _MIB:+.1f})"
                for name, size in parts(row).items()
            ),
        )
        for row in rows
    ]
    lines = heading("What holds the planned memory", about, command)
    lines += table(("method", "training-only", *PARTS), cells)
    return "\n".join(lines) + "\n"
