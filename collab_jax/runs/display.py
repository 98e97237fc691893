"""What a run shows on the terminal: a summary, a progress bar, a line an epoch."""

import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

__all__ = ["Display", "NoDisplay", "TerminalDisplay", "device_names", "note"]


class Display(Protocol):
    """What shows a run's progress."""

    def table(self, title: str, rows: Mapping[str, Any]) -> None: ...

    def start(self) -> None: ...

    def first_step(self) -> Any: ...

    def update(self, step: int, text: str) -> None: ...

    def line(self, text: str) -> None: ...

    def stop(self) -> None: ...


class NoDisplay:
    """Shows nothing: of several processes, the first one alone has a display."""

    def table(self, title: str, rows: Mapping[str, Any]) -> None:
        pass

    def start(self) -> None:
        pass

    @contextmanager
    def first_step(self) -> Iterator[None]:
        yield

    def update(self, step: int, text: str) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def stop(self) -> None:
        pass


class TerminalDisplay:
    """Writes to standard error; without a terminal, a line an epoch and no bar.

    Args:
      total_steps: length of the run.
      steps_done: where it goes on from.
      bar: whether to show the bar on a terminal.
      console: where to; None for standard error.
    """

    def __init__(
        self, total_steps: int, steps_done: int, *, bar: bool, console: Console | None = None
    ) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            BarColumn(bar_width=max(4, min(24, self._console.width - 76)), table_column=_whole()),
            TextColumn("{task.percentage:>3.0f}%"),
            _Note(),
            _Elapsed(table_column=_whole()),
            TimeRemainingColumn(table_column=_whole()),
            TextColumn("left"),
            console=self._console,
            disable=not (bar and self._console.file.isatty()),
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(
            "train", total=total_steps, completed=steps_done, note="", compiling_since=None
        )

    def table(self, title: str, rows: Mapping[str, Any]) -> None:
        """Shows named values: on a terminal within its width, else one a line, however long."""
        width = max(map(len, rows), default=0)
        lines = [f" {name:<{width}}  {value}" for name, value in rows.items()]
        if self._console.file.isatty():
            shown, indent = self._console.width - 1, " " * (width + 3)
            wrapper = textwrap.TextWrapper(
                shown, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
            lines = [part for line in lines for part in wrapper.wrap(line)]
        self._console.print("\n".join([title, *lines]), markup=False)

    def start(self) -> None:
        """Shows the bar."""
        self._progress.start()

    @contextmanager
    def first_step(self) -> Iterator[None]:
        """Around a step that compiles its program first: tells what is waited for."""
        if self._progress.disable:
            self.line("compiling the train step")
        began = time.monotonic()
        self._progress.update(self._task, compiling_since=began)
        yield
        self._progress.update(self._task, compiling_since=None)
        self.line(f"the train step is compiled ({time.monotonic() - began:.0f} s)")

    def update(self, step: int, text: str) -> None:
        """Moves the bar to a step, with a text beside it."""
        self._progress.update(self._task, completed=step, note=text)

    def line(self, text: str) -> None:
        """Writes a line above the bar."""
        self._console.print(text, markup=False)

    def stop(self) -> None:
        """Takes the bar away, or leaves it as it is at the end."""
        self._progress.stop()


def _whole() -> Column:
    return Column(no_wrap=True)


class _Elapsed(TimeElapsedColumn):
    """The time so far and a comma, as the time that is left follows."""

    def render(self, task: Task) -> Text:
        return super().render(task).append(",")


class _Note(ProgressColumn):
    """The text beside the bar, which alone is cut where the terminal is narrow."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=False, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        since = task.fields["compiling_since"]
        text = task.fields["note"]
        if since is not None:
            text = f"compiling the train step ({time.monotonic() - since:.0f} s so far)"
        return Text(text, no_wrap=True, overflow="ellipsis")


def note(epoch: int, means: Mapping[str, float | None], rate: float | None) -> str:
    """An epoch so far, in a line that fits beside a bar of 80 columns.

    Args:
      epoch: counted from 1.
      means: of the epoch, None where no step counted.
      rate: images per second; None where it is not known yet.
    """
    parts = [f"epoch {epoch}"]
    loss, error = means["loss"], means["top1_error"]
    parts += [] if loss is None else [f"loss {loss:.3f}"]
    parts += [] if error is None else [f"error {error:.1f}%"]
    parts += [] if rate is None else [f"{rate:,.0f} img/s"]
    return "  ".join(parts)


def device_names() -> str:
    """The devices in use, such as `2 x NVIDIA H100 (gpu)` or `1 x cpu`."""
    devices = jax.devices()
    kind, platform = devices[0].device_kind, devices[0].platform
    return f"{len(devices)} x {kind}" + ("" if kind == platform else f" ({platform})")
