"""When a run's display and checkpoints are due, and how fast an epoch's steps were."""

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

    def due_checkpoint(self, step: int, every_steps: int, every_minutes: float) -> bool:
        """Whether one is due by the steps or the minutes since the last; never for 0 of them."""
        # A dispatch of several steps can pass over a multiple: it is due at the next boundary.
        passed = every_steps > 0 and step // every_steps > self.saved_step // every_steps
        minutes = (time.monotonic() - self._saved) / 60
        return passed or (every_minutes > 0 and minutes >= every_minutes)

    def saved(self, step: int) -> None:
        """Notes a checkpoint."""
        self._saved, self.saved_step = time.monotonic(), step


class EpochTimer:
    """Time of an epoch's steps, and how much of it the device had nothing to do.

    The first step of a program, which compiles it, counts as neither steps nor time.

    Args:
      batch_size: images in a step.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._began = time.monotonic()
        self._ended: float | None = None
        self._idle = self._left_out = 0.0
        self._steps = 0

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

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Around a first step, which compiles, from its dispatch until it is computed."""
        began = time.monotonic()
        yield
        self._left_out += time.monotonic() - began

    def count(self, steps: int) -> None:
        """Adds steps that were dispatched."""
        self._steps += steps

    def stop(self) -> None:
        """Ends the epoch: what follows its last step does not count."""
        self._ended = time.monotonic()

    def images_per_second(self) -> float | None:
        """Of the steps counted so far; None where none was."""
        return self._batch_size * self._steps / self._seconds() if self._steps else None

    def figures(self) -> dict[str, float | None]:
        """What metrics.jsonl tells of the speed; None where no step counted.

        `wait_fraction` is the share of the time in which the device waited, at most.
        """
        waited = min(self._idle / self._seconds(), 1.0) if self._steps else None
        return {"images_per_second": self.images_per_second(), "wait_fraction": waited}

    def _seconds(self) -> float:
        ended = time.monotonic() if self._ended is None else self._ended
        return max(ended - self._began - self._left_out, 1e-9)
