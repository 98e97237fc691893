"""The file that keeps what was measured: JSON lines, one for each attempt at a cell."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collab_jax.errors import UserError
from collab_jax.files.atomic import json_text

__all__ = ["RECORDS", "Records"]

RECORDS = "records.jsonl"
_SAME = ("device", "jax")


class Records:
    """Every cell's newest record.

    A record holds the `cell`, the `machine`, `seconds`, and `figures`, an `error` or what was
    `skipped` and why.

    Args:
      out: the folder.

    Raises:
      UserError: if it holds other things, or a damaged file.
    """

    def __init__(self, out: Path) -> None:
        self._path = out / RECORDS
        self._newest: dict[str, dict[str, Any]] = {}
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                self._newest[_key(record["cell"])] = record
            except (ValueError, TypeError, KeyError):
                # A process that was killed leaves a torn last line.
                if number < len(lines):
                    raise UserError(
                        f"{self._path}: line {number} is damaged; expected a JSON object with a "
                        "cell. Delete the line to measure it again"
                    ) from None
                with self._path.open("rb+") as file:
                    file.truncate(sum(map(len, lines[:-1])))

    def __iter__(self):
        return iter(self._newest.values())

    def done(self, cell: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of a cell that has figures."""
        record = self._newest.get(_key(cell))
        return record if record is not None and "figures" in record else None

    def add(self, record: dict[str, Any]) -> None:
        """Keeps a record, which is on disk when this returns."""
        with self._path.open("a") as file:
            file.write(json_text(record) + "\n")
        self._newest[_key(record["cell"])] = record

    def check_machine(self, machine: Mapping[str, Any]) -> None:
        """Refuses to mix figures of two devices or two versions of JAX.

        Raises:
          UserError: if the file holds another's.
        """
        for record in self:
            other = record["machine"]
            if any(other[name] != machine[name] for name in _SAME):
                raise UserError(
                    f"{self._path}: holds figures of {other['device']}, jax {other['jax']}, and "
                    f"this is {machine['device']}, jax {machine['jax']}; expected another folder"
                )


def _key(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)
