"""When a run's display and checkpoints are due, and how much of an epoch the device waited."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Clock", "EpochTimer"]


class Clock:
    """When the display and the checkpoints are due.

    Args:
      began: when this process began with the run, by `time.monotonic`.
      seconds_before: what earlier processes spent on it.
      first_step: the step that it goes on from.

    Attributes:
      saved_step: the step of the last checkpoint.
    """

    def __init__(self, began: float, seconds_before: float, first_step: int) -> None:
        self._began, self._before = began, seconds_before
        self._displayed = self._saved = time.monotonic()
        self.saved_step = first_step

    def total_seconds(self) -> float:
        """Seconds spent on the run by all processes that went on with it."""
        return self._before + time.monotonic() - self._began

    def due_display(self, every_seconds: float) -> bool:
        """Whether it is time to show progress; if so, the time begins anew."""
        due = time.monotonic() - self._displayed >= every_seconds
        if due:
            self._displayed = time.monotonic()
        return due

    def due_checkpoint(self, every_minutes: float) -> bool:
        """Whether so many minutes went by since the last checkpoint; never for 0."""
        return every_minutes > 0 and time.monotonic() - self._saved >= 60 * every_minutes

    def saved(self, step: int) -> None:
        """Notes a checkpoint."""
        self._saved, self.saved_step = time.monotonic(), step


class EpochTimer:
    """Time of an epoch's steps, and how much of it the device had nothing to do.

    Attributes:
      steps: done in the epoch by this process.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._ended: float | None = None
        self._idle = 0.0
        self.steps = 0

    @contextmanager
    def waiting(self, report: Any) -> Iterator[None]:
        """Counts the host's work as waiting if the device was done before the host was.

        An upper bound: when exactly the device finished is not known.

        Args:
          report: of the last step dispatched; None before the first.
        """
        began = time.monotonic()
        yield
        if report is None or report["loss"].is_ready():
            self._idle += time.monotonic() - began

    def stop(self) -> None:
        """Ends the epoch: what follows its last step does not count."""
        self._ended = time.monotonic()

    def seconds(self) -> float:
        """Since the epoch began, or from its beginning to its end."""
        ended = time.monotonic() if self._ended is None else self._ended
        return max(ended - self._began, 1e-9)

    def wait_fraction(self) -> float:
        """The share of that time in which the device waited, at most."""
        return min(self._idle / self.seconds(), 1.0)
