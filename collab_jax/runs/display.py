"""What a run shows on the terminal: a summary, a progress bar, a line an epoch."""

import sys
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["Display", "device_names"]


class Display:
    """Writes to standard error; without a terminal, a line an epoch and no bar.

    Args:
      total_steps: length of the run.
      steps_done: where it goes on from.
      bar: whether to show the bar on a terminal.
    """

    def __init__(self, total_steps: int, steps_done: int, *, bar: bool) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (bar and sys.stderr.isatty()),
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(
            "train", total=total_steps, completed=steps_done, note=""
        )

    def table(self, title: str, rows: dict[str, Any]) -> None:
        """Shows named values, one a line."""
        table = Table(title=title, show_header=False, title_justify="left", box=None)
        for name, value in rows.items():
            table.add_row(name, str(value))
        self._console.print(table)

    def start(self) -> None:
        self._progress.start()

    def update(self, step: int, epoch: int, metrics: dict[str, float], rate: float) -> None:
        """Moves the bar to a step and shows the epoch's means so far."""
        note = (
            f"epoch {epoch}  loss {metrics['loss']:.4f}  error {metrics['top1_error']:.2f}%  "
            f"{rate:,.0f} images/s"
        )
        self._progress.update(self._task, completed=step, note=note)

    def line(self, text: str) -> None:
        """Writes a line above the bar."""
        self._console.print(text)

    def stop(self) -> None:
        self._progress.stop()


def device_names() -> str:
    """The devices in use, such as `2 x NVIDIA H100`."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
