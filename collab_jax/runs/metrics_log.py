"""What a run writes down: metrics.jsonl and TensorBoard events."""

import json
import os
import warnings
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from collab_jax.errors import RunError, needs
from collab_jax.files.atomic import json_text, write_bytes
from collab_jax.runs.directory import METRICS, TENSORBOARD

__all__ = ["Log", "MetricsLog", "NoLog", "read_metrics"]

_NOT_SCALARS = ("step", "epoch", "split")


def read_metrics(run_dir: Path, up_to_step: int | None = None) -> list[dict[str, Any]]:
    """Reads the lines of metrics.jsonl, leaving out a torn last one.

    Args:
      run_dir: the run directory.
      up_to_step: leaves out the lines of later steps.

    Returns:
      One dictionary an epoch and split, in the order written.

    Raises:
      RunError: if a line before the last is damaged, or any is JSON of another form.
    """
    path = run_dir / METRICS
    lines = []
    texts = path.read_bytes().splitlines() if path.exists() else []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            if number == len(texts):
                break
            line = None
        if not _is_line(line):
            raise RunError(
                f"{path}: line {number} of {len(texts)} is damaged; expected a JSON object with "
                "step, epoch, split and numbers. Delete the line to go on without it"
            )
        if up_to_step is not None and line["step"] > up_to_step:
            break
        lines.append(line)
    return lines


def _is_line(line: Any) -> TypeGuard[dict[str, Any]]:
    if not isinstance(line, dict) or not isinstance(line.get("split"), str):
        return False
    if not all(type(line.get(name)) is int for name in ("step", "epoch")):
        return False
    values = [value for name, value in line.items() if name not in _NOT_SCALARS]
    return all(value is None or type(value) in (int, float) for value in values)


class Log(Protocol):
    """What writes down a run's lines; `lines` counts them."""

    lines: int

    def write(self, line: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class NoLog:
    """Writes nothing: of several processes, the first one alone has a log."""

    lines = 0

    def write(self, line: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class MetricsLog:
    """Appends to metrics.jsonl, a line an epoch and split, and to TensorBoard's events.

    Args:
      run_dir: the run directory.
      step: the step that the run goes on from; what was written of later ones is dropped.
      tensorboard: whether to write events.
      expected_lines: how many lines the file held when that step was saved; fewer are told in a
        warning.
    """

    def __init__(
        self, run_dir: Path, step: int, *, tensorboard: bool = True, expected_lines: int = 0
    ) -> None:
        path = run_dir / METRICS
        kept = read_metrics(run_dir, step)
        self.lines = len(kept)
        if self.lines < expected_lines:
            warnings.warn(
                f"{path}: {self.lines} lines are left of the {expected_lines} written up to step "
                f"{step}; the others are lost, the run itself is not affected",
                stacklevel=2,
            )
        if path.exists():
            write_bytes(path, "".join(f"{json_text(line)}\n" for line in kept).encode())
        # Unbuffered: what a full disk did not take must not be tried again at closing.
        self._file = path.open("ab", buffering=0)
        self._events = None
        if tensorboard:
            with needs("train"):
                from collab_jax.runs.tensorboard import EventFile
            self._events = EventFile(run_dir / TENSORBOARD, step)

    def write(self, line: dict[str, Any]) -> None:
        """Writes one line, which is on disk when this returns; null for what is not finite.

        Raises:
          OSError: if the disk does not take it.
        """
        text = json_text(line)
        data = f"{text}\n".encode()
        while data:
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())
        self.lines += 1
        if self._events is not None:
            line = json.loads(text)
            self._events.write(
                line["step"],
                {
                    f"{line['split']}/{name}": value
                    for name, value in line.items()
                    if name not in _NOT_SCALARS and value is not None
                },
            )

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()
