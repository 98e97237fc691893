"""What a run writes down: metrics.jsonl and TensorBoard events."""

import json
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

__all__ = ["MetricsLog", "read_metrics", "summarise"]

METRICS = "metrics.jsonl"
_NOT_SCALARS = ("step", "epoch", "split")


def read_metrics(run_dir: Path, up_to_step: int | None = None) -> list[dict[str, Any]]:
    """Reads the lines of metrics.jsonl, leaving out a torn last one.

    Args:
      run_dir: the run directory.
      up_to_step: leaves out the lines of later steps.

    Returns:
      One dictionary an epoch and split, in the order written.
    """
    path = run_dir / METRICS
    lines = []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                break
            if up_to_step is not None and line["step"] > up_to_step:
                break
            lines.append(line)
    return lines


class MetricsLog:
    """Appends to metrics.jsonl, a line an epoch and split, and to TensorBoard's events.

    Args:
      run_dir: the run directory.
      step: the step that the run goes on from; what was written of later ones is dropped.
      tensorboard: whether to write events.
    """

    def __init__(self, run_dir: Path, step: int, *, tensorboard: bool = True) -> None:
        path = run_dir / METRICS
        if path.exists():
            kept = read_metrics(run_dir, step)
            temporary = run_dir / f".{METRICS}"
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            temporary.replace(path)
        self._file = path.open("a")
        self._writer = (
            SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)
            if tensorboard
            else None
        )

    def write(self, line: dict[str, Any]) -> None:
        """Writes one line, which is on disk when this returns."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._writer is not None:
            for name, value in line.items():
                if name not in _NOT_SCALARS and value is not None:
                    self._writer.add_scalar(f"{line['split']}/{name}", value, line["step"])
            self._writer.flush()

    def close(self) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def summarise(sums: dict[str, Any]) -> dict[str, float]:
    """Turns a train step's sums over an epoch into means, and wrong parts into errors in %."""
    steps = max(float(sums["steps"]), 1.0)
    means = {
        name: float(value) / steps
        for name, value in sums.items()
        if name not in ("steps", "skipped", "fault")
    }
    for top in ("top1", "top5"):
        means[f"{top}_error"] = 100.0 * means.pop(f"{top}_wrong")
    return {**means, "skipped_steps": int(sums["skipped"])}
