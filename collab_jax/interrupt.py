"""Signals that ask a run to stop."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["EXIT_CODE", "Interrupted", "StopSignals"]

EXIT_CODE = 75  # EX_TEMPFAIL: run the same command again to go on


class Interrupted(Exception):
    """A run stopped at a step boundary after a signal; its checkpoint is saved."""

    def __init__(self, number: int, step: int, run_dir: Path) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} after step {step}, which is saved; the same "
            f"command goes on with {run_dir}"
        )


class StopSignals:
    """Catches SIGTERM, SIGINT and SIGUSR1 while a run trains.

    The first one is noted, for the run to save at the next step boundary; the second ends the
    process at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number
