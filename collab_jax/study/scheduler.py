"""Runs what is missing, goes on with what was cut off, adopts what is alive, skips what is done."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from collab_jax.errors import RunError
from collab_jax.files.atomic import write_json
from collab_jax.runs.signals import EXIT_CODE
from collab_jax.study.child import CommandJob
from collab_jax.study.display import Board
from collab_jax.study.estimate import estimate
from collab_jax.study.folder import check_room
from collab_jax.study.launcher import Engine, Job
from collab_jax.study.state import JobFiles, Pace, State, is_held, run_state
from collab_jax.study.task import Run, interpreter_command

__all__ = ["Scheduler", "StudyStopped"]

_STARTS = 5


class StudyStopped(Exception):
    """A signal stopped the study; its runs saved and ended."""


class _Elsewhere:
    """A run that a process holds that this study did not start."""

    id = ""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir

    def alive(self) -> bool:
        return is_held(self._run_dir)

    def stop(self) -> None:
        """It is not this study's to stop."""


class Scheduler:
    """Brings every run of a study to its end.

    Args:
      out: the study's folder, which this process holds.
      runs: in the order in which they start.
      engine: starts them.
      board: shows them.
      jobs: how many are alive at a time.
      threads: of each run's computation; 0 leaves it to XLA.
      gpus: devices of this machine, one for each of the runs that are alive; empty: all see all.
      flags: `--config.KEY=VALUE` words for every run.
      poll_seconds: between two looks.
    """

    def __init__(
        self,
        out: Path,
        runs: Sequence[Run],
        engine: Engine,
        board: Board,
        *,
        jobs: int = 1,
        threads: int = 0,
        gpus: Sequence[str] = (),
        flags: Sequence[str] = (),
        poll_seconds: float = 1.0,
    ) -> None:
        self._out, self._runs, self._engine, self._board = (
            out,
            {r.name: r for r in runs},
            engine,
            board,
        )
        self._jobs, self._threads, self._gpus = jobs, threads, tuple(gpus)
        self._flags, self._poll_seconds = tuple(flags), poll_seconds
        self._alive: dict[str, Job] = {}
        self._slots: dict[str, int] = {}
        self._starts: dict[str, int] = {}
        self._paces: dict[str, Pace] = {}
        self.states: dict[str, State] = {}
        self._asked_to_stop = False

    def go(self) -> dict[str, State]:
        """Runs the study.

        Returns:
          The last state of every run.

        Raises:
          RunError: if the disk is nearly full.
          StudyStopped: after a signal.
        """
        for name, run in self._runs.items():
            self.states[name] = run_state(self._out, run)
        for name, run in self._runs.items():
            if self.states[name].status != "done":
                if self.states[name].reason:
                    self._board.say(f"not done {name}: {self.states[name].reason}")
                self._adopt(run)
        full: RunError | None = None
        with self._stop_signals(), self._board:
            while True:
                self._look()
                if not self._asked_to_stop and full is None:
                    try:
                        self._start_some()
                    except RunError as error:
                        full = error
                self._show()
                if not self._alive and (self._asked_to_stop or full or not self._open()):
                    break
                time.sleep(self._poll_seconds)
        if full is not None:
            raise full
        if self._asked_to_stop:
            raise StudyStopped(
                f"stopped; the same command goes on with {len(self._open())} runs in {self._out}"
            )
        return self.states

    def _files(self, run: Run) -> JobFiles:
        return JobFiles(self._out / "jobs", run.id)

    def _open(self) -> list[str]:
        """The runs that may start, those that have begun first."""
        names = [
            name
            for name, state in self.states.items()
            if state.status in ("waiting", "stopped") and self._may_start(self._runs[name])
        ]
        return sorted(names, key=lambda name: self.states[name].status == "waiting")

    def _may_start(self, run: Run) -> bool:
        before = self.states.get(run.after)
        return not run.after or (before is not None and before.status == "done")

    def _adopt(self, run: Run) -> None:
        job = self._engine.find(self._files(run).read_record())
        if job is None and run.config is not None and is_held(self._out / run.name):
            job = _Elsewhere(self._out / run.name)
            self._files(run).outcome.unlink(missing_ok=True)
        if job is not None:
            self._alive[run.name] = job
            self._board.say(f"adopted {run.name}")

    def _look(self) -> None:
        for name, run in self._runs.items():
            job = self._alive.get(name)
            if job is None:
                continue
            if job.alive():
                begun = run.config is None or (self._out / run.name / "config.json").is_file()
                self.states[name] = run_state(self._out, run, "running" if begun else "queued")
                continue
            del self._alive[name]
            self._slots.pop(name, None)
            self.states[name] = self._ended(run)

    def _ended(self, run: Run) -> State:
        """What became of a run whose job is no longer alive."""
        state = run_state(self._out, run)
        if state.status in ("done", "failed"):
            return state
        outcome = self._files(run).read_outcome()
        code = outcome.get("exit_code")
        reason = outcome.get("reason") or "its job ended without a word"
        # What an earlier study started is tried again, as if it had failed before this one began.
        adopted = run.name not in self._starts
        if adopted or code is None or code == EXIT_CODE or "in use by" in reason:
            if self._asked_to_stop:
                return replace(state, status="stopped")
            self._adopt_if_held(run)
            if self._starts.get(run.name, 0) < _STARTS:
                return state
        return replace(state, status="failed", reason=reason)

    def _adopt_if_held(self, run: Run) -> None:
        if run.config is not None and is_held(self._out / run.name):
            self._alive[run.name] = _Elsewhere(self._out / run.name)

    def _start_some(self) -> None:
        for name in self._open():
            if len(self._alive) >= self._jobs:
                return
            if name not in self._alive:
                check_room(self._out)
                self._start(self._runs[name])

    def _start(self, run: Run) -> None:
        files = self._files(run)
        command = [*interpreter_command(run), *(self._flags if run.config is not None else ())]
        slot = min(set(range(self._jobs)) - set(self._slots.values()))
        environment: dict[str, str | None] = {}
        if self._threads:
            environment["NPROC"] = str(self._threads)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        try:
            files.outcome.unlink(missing_ok=True)
            job = self._engine.submit(
                CommandJob(command, str(files.log), str(files.outcome), environment), run.id
            )
            record: Mapping[str, Any] = {
                "job": job.id,
                "cluster": self._engine.cluster,
                "host": socket.gethostname(),
                "command": command,
                "environment": environment,
            }
            self._alive[run.name], self._slots[run.name] = job, slot
            write_json(files.record, record)
        except OSError as error:
            raise RunError(f"{files.folder}: {error.strerror or error}; no run was lost") from error
        self._starts[run.name] = self._starts.get(run.name, 0) + 1
        self._paces.pop(run.name, None)
        self.states[run.name] = replace(self.states[run.name], status="queued")

    def _show(self) -> None:
        left = {}
        for name, state in self.states.items():
            if state.status == "running":
                left[name] = self._paces.setdefault(name, Pace()).seconds_left(state)
        estimates = estimate(self._runs, self.states)
        open_runs = [n for n, state in self.states.items() if state.status != "failed"]
        seconds = [left.get(name) or estimates[name].seconds for name in open_runs]
        known = [value for value in seconds if value is not None]
        total = sum(known) / self._jobs if len(known) == len(seconds) else None
        self._board.update(self.states, left, total)

    @contextmanager
    def _stop_signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM stops the runs, which save; the second leaves them alone."""

        def stop(number: int, frame: Any) -> None:
            if self._asked_to_stop:
                raise StudyStopped("left; its runs go on, and the same command adopts them")
            self._asked_to_stop = True
            for job in self._alive.values():
                job.stop()

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
