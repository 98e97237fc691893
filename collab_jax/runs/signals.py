"""Signals that ask a run to stop."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["EXIT_CODE", "Interrupted", "StopSignals", "stop_at_once"]

EXIT_CODE = 75
"""EX_TEMPFAIL: run the same command again to go on."""


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_ONE_REQUEST = 1.0  # Seconds: schedulers and terminals send several signals at once.


class Interrupted(Exception):
    """A run stopped at a step boundary after a signal; its checkpoint is saved."""

    def __init__(self, number: int, step: int, run_dir: Path) -> None:
        where = f"after step {step}, which is saved" if step else "before the first step"
        super().__init__(
            f"stopped by {signal.Signals(number).name} {where}; the same command goes on with "
            f"{run_dir}"
        )


class StopSignals:
    """Catches SIGTERM, SIGINT, SIGUSR1 and SIGHUP while a run trains.

    The first one is noted, for the run to save at the next step boundary. Those of the second after
    it are the same request; a later one ends the process at once. SIGHUP stays ignored where it
    was, as under nohup. Outside of the main thread, which alone may do so, nothing is caught.
    Afterwards handlers are as they were, but for those of `stop_at_once`.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in _caught():
                self._before[number] = signal.signal(number, self._receive)
            # Python calls a handler between two of its own instructions, so not while XLA compiles,
            # and once for what came meanwhile: a thread sees each signal as it comes.
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            threading.Thread(target=_exit_at_second, args=(self._reader,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._before:
            return
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)  # which ends the thread
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if handler is _stop else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number


def _caught() -> list[signal.Signals]:
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in _SIGNALS if not (ignored and number == signal.SIGHUP)]


def _exit_at_second(reader: int) -> None:
    first: float | None = None
    with open(reader, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            now = time.monotonic()
            if number[0] in _SIGNALS:
                first = now if first is None else first
                if now - first > _ONE_REQUEST:
                    os._exit(128 + number[0])


def stop_at_once() -> None:
    """For a process's own program: while there is nothing to save, these signals end it.

    Once a run has trained, they are ignored until the process is gone, as an interpreter that ends
    gives its handlers back, and a signal would decide the exit code.
    """
    if threading.current_thread() is threading.main_thread():
        for number in _caught():
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    text = f"stopped by {name} with nothing to save; the same command starts again\n"
    with suppress(OSError):  # The terminal may be what is gone.
        os.write(2, text.encode())
    os._exit(EXIT_CODE)
