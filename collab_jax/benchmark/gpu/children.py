"""Worker processes: started, listened to, and stopped in time."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Deadline", "environment_for", "replies"]

_GRACE = 120


class Deadline:
    """When the command must be done.

    Args:
      minutes: from now on; None for no end.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def passed(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def end(self, process: subprocess.Popen[Any], early: float = 0.0) -> threading.Timer | None:
        """Sends SIGTERM to a process when the time is up, or some seconds earlier."""
        if self._end is None:
            return None
        timer = threading.Timer(
            max(0.0, self._end - early - time.monotonic()), lambda: _ask_to_end(process)
        )
        timer.daemon = True
        timer.start()
        return timer


def environment_for(cell: Mapping[str, Any], programs: Path) -> dict[str, str]:
    """The variables that a cell's process gets besides.

    The CPU is there besides the GPU, which then holds no more than what is in use; compiled
    programs are kept, so that a cell that is measured again does not compile again.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    found = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(programs)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    if platforms and "cpu" not in platforms.split(","):
        found["JAX_PLATFORMS"] = f"{platforms},cpu"
    if "anew" in cell.get("run", ""):
        found["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    return found


def replies(
    cells: Sequence[Mapping[str, Any]],
    *,
    log: Path,
    environment: Mapping[str, str],
    deadline: Deadline,
) -> Iterator[dict[str, Any]]:
    """Measures cells in one worker.

    Args:
      cells: all of one part.
      log: file that the worker's other output is appended to.
      environment: variables that it gets besides.
      deadline: when it is ended.

    Yields:
      `machine` or `refused` first, and then what `worker.measured` returns for each cell; for one
      at which the worker ends, its `error`, and none after it.
    """
    request = {"cells": list(cells), "deterministic": any(c["part"] == "repeat" for c in cells)}
    with log.open("ab") as errors:
        began = errors.tell()
        worker = subprocess.Popen(
            [sys.executable, "-m", "collab_jax.benchmark.gpu.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **environment},
            text=True,
            start_new_session=True,
        )
    timer = deadline.end(worker)
    assert worker.stdin is not None and worker.stdout is not None
    count = 0
    try:
        worker.stdin.write(json.dumps(request))
        worker.stdin.close()
        for line in worker.stdout:
            count += 1
            yield json.loads(line)
        code = worker.wait()
        if count < len(cells) + 1 and not deadline.passed and code:
            yield {"error": _last_words(log, began, code)}
    finally:
        if timer is not None:
            timer.cancel()
        stop(worker)
        worker.stdout.close()


def stop(process: subprocess.Popen[Any]) -> None:
    """Ends a process that is still there: SIGTERM, and after two minutes SIGKILL."""
    _ask_to_end(process)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ask_to_end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.terminate()


def _last_words(log: Path, began: int, code: int) -> str:
    with log.open("rb") as file:
        file.seek(began)
        lines = file.read().decode(errors="replace").strip().splitlines()
    ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{ended}: {' '.join(lines[-1].split())[:200]}" if lines else ended
