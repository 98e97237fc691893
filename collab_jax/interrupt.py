"""Signals that ask a run to stop."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["EXIT_CODE", "Interrupted", "StopSignals", "stop_at_once"]

EXIT_CODE = 75
"""EX_TEMPFAIL: run the same command again to go on."""


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupted(Exception):
    """A run stopped at a step boundary after a signal; its checkpoint is saved."""

    def __init__(self, number: int, step: int, run_dir: Path) -> None:
        where = f"after step {step}, which is saved" if step else "before the first step"
        super().__init__(
            f"stopped by {signal.Signals(number).name} {where}; the same command goes on with "
            f"{run_dir}"
        )


class StopSignals:
    """Catches SIGTERM, SIGINT and SIGUSR1 while a run trains.

    The first one is noted, for the run to save at the next step boundary; the second ends the
    process at once. Outside of the main thread, which alone may do so, nothing is caught.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number


@contextmanager
def stop_at_once() -> Iterator[None]:
    """While there is nothing to save: the same signals end the process with `EXIT_CODE`."""

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        text = f"stopped by {name} before training; the same command starts again\n"
        os.write(2, text.encode())
        os._exit(EXIT_CODE)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
