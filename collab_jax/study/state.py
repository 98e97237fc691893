"""How far a run is, read from its directory and from what its job left."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from collab_jax.errors import RunError
from collab_jax.files.atomic import read_json
from collab_jax.files.locks import is_locked
from collab_jax.runs.directory import LOCK, read_result
from collab_jax.runs.metrics_log import read_metrics
from collab_jax.runs.signals import EXIT_CODE
from collab_jax.study.task import Run

__all__ = ["JobFiles", "Pace", "State", "Status", "is_held", "run_state", "told_state"]

Status = Literal["waiting", "queued", "running", "stopped", "failed", "done"]


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
      status: waiting (not begun), queued, running, stopped (begun, goes on later), failed, done.
      epoch: epochs done.
      epochs: of the whole run.
      error: the newest test error in %, None where there is none yet.
      seconds: that a finished run took.
      reason: why it failed, or why its result does not count.
    """

    status: Status
    epoch: int = 0
    epochs: int = 0
    error: float | None = None
    seconds: float | None = None
    reason: str = ""

    @property
    def fraction(self) -> float:
        """Part of its epochs that is done."""
        return min(self.epoch / self.epochs, 1.0) if self.epochs else 0.0


@dataclass(frozen=True)
class JobFiles:
    """Where a study keeps what it knows of a run's job."""

    folder: Path
    id: str

    @property
    def record(self) -> Path:
        return self.folder / f"{self.id}.job.json"

    @property
    def outcome(self) -> Path:
        return self.folder / f"{self.id}.outcome.json"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.id}.log"

    def read_record(self) -> dict[str, Any]:
        return read_json(self.record) or {}

    def read_outcome(self) -> dict[str, Any]:
        return read_json(self.outcome) or {}


def is_held(run_dir: Path) -> bool:
    """Whether a process trains in a run directory now."""
    return is_locked(run_dir / LOCK)


def run_state(out: Path, run: Run, status: Status | None = None) -> State:
    """Reads how far a run is.

    Args:
      out: the study's folder.
      run: a run of it.
      status: what the study knows of it; None to tell by the files alone, which cannot tell a run
        that is alive from one that stopped.
    """
    if run.config is None:
        if not (out / run.product).is_file():
            return State(status or "waiting", epochs=1)
        seconds = JobFiles(out / "jobs", run.id).read_outcome().get("seconds")
        return State("done", epoch=1, epochs=1, seconds=seconds)
    run_dir, epochs = out / run.name, int(run.config.epochs)
    try:
        result, reason = read_result(run_dir), ""
    except RunError as error:
        result, reason = None, str(error)
    if result is not None:
        error = result.get("last_test_error_top5" if run.config.top5 else "last_test_error")
        return State("done", int(result["epochs"]), epochs, error, float(result["seconds"]))
    try:
        lines = read_metrics(run_dir)
    except RunError as error:
        return State("failed", epochs=epochs, reason=str(error))
    epoch = max((line["epoch"] for line in lines), default=0)
    name = "top5_error" if run.config.top5 else "top1_error"
    errors = [line[name] for line in lines if line["split"] == "test" and name in line]
    begun: Status = "stopped" if (run_dir / "config.json").is_file() else "waiting"
    error = errors[-1] if errors else None
    return State(status or begun, epoch, epochs, error, reason=reason)


def told_state(out: Path, run: Run) -> State:
    """How far a run is, to a reader who does not run the study: alive, failed and why, or as far.

    Args:
      out: the study's folder.
      run: a run of it.
    """
    state = run_state(out, run)
    if state.status in ("waiting", "stopped"):
        if run.config is not None and is_held(out / run.name):
            return replace(state, status="running")
        outcome = JobFiles(out / "jobs", run.id).read_outcome()
        if outcome.get("exit_code") not in (None, 0, EXIT_CODE):
            return replace(state, status="failed", reason=str(outcome.get("reason", "")))
    return state


class Pace:
    """The time left of a run, by how fast its epochs went since it was first looked at."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def seconds_left(self, state: State) -> float | None:
        """None until an epoch has gone by."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, state.epoch)
        began, epoch = self._first
        if state.epoch <= epoch:
            return None
        return (now - began) / (state.epoch - epoch) * (state.epochs - state.epoch)
