"""What runs on the other side of the engine: one command, its log and how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collab_jax.errors import cut
from collab_jax.files.atomic import write_json

__all__ = ["CommandJob", "reason_of"]

_TAIL_BYTES = 8192


@dataclass
class CommandJob:
    """A command as submitit runs it.

    Attributes:
      command: the command.
      log: file that its output is appended to.
      outcome: file that holds its exit code and, where it failed, the reason.
      environment: variables that it gets besides; None removes one.
    """

    command: list[str]
    log: str
    outcome: str
    environment: dict[str, str | None] = field(default_factory=dict)

    def __call__(self) -> int:
        """Runs the command to its end; returns its exit code."""
        environment = dict(os.environ)
        for name, value in self.environment.items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        began = time.time()
        with open(self.log, "ab") as log:
            # A session of its own, so that a key pressed on a terminal does not reach it besides
            # the one signal that is passed on: a second signal would end it without saving.
            self._process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
            signal.signal(signal.SIGTERM, self._pass_on)
            code = self._process.wait()
        seconds = time.time() - began
        reason = reason_of(Path(self.log), code)
        write_json(Path(self.outcome), {"exit_code": code, "reason": reason, "seconds": seconds})
        return code

    def _pass_on(self, number: int, frame: Any) -> None:
        self._process.send_signal(signal.SIGTERM)

    def checkpoint(self) -> Any:
        """At the end of a cluster job's time: the run saves, and the job is queued again."""
        from submitit.helpers import DelayedSubmission

        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        return DelayedSubmission(CommandJob(self.command, self.log, self.outcome, self.environment))


def reason_of(log: Path, exit_code: int) -> str:
    """Why a command ended, in a line: a signal, its error message, or the last line it printed."""
    if exit_code == 0:
        return ""
    # 128 and the signal's number is what a run exits with that a second signal ends.
    number = -exit_code if exit_code < 0 else exit_code - 128
    name = {known.value: known.name for known in signal.Signals}.get(number)
    if name or exit_code < 0:
        return f"killed by {name or number}"
    lines: list[str] = []
    if log.is_file():
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    last = (errors or lines or ["it printed nothing"])[-1].removeprefix("error: ")
    return cut(last, 300)
