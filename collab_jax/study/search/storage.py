"""A search's trials on disk, shared by several processes, each trial claimed once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collab_jax.errors import UserError
from collab_jax.files.locks import FileLock
from collab_jax.study.search.spec import Search, grid_points

__all__ = ["Claim", "SearchStorage"]


class Claim:
    """A trial that this process works on; another process takes it over only when this one ended.

    Attributes:
      trial: of optuna.
      folder: of its runs.
    """

    def __init__(self, trial: Any, folder: Path, lock: FileLock) -> None:
        self.trial, self.folder, self._lock = trial, folder, lock

    def release(self) -> None:
        """Gives the trial up, finished or not."""
        self._lock.release()


class SearchStorage:
    """The journal of a search.

    All trials are enqueued at the beginning: the grid's with their values, the others without, so
    that the sampler draws them when they are claimed. A claim is made under a lock of the file
    system, since a sampler or queue by itself gives two processes the same point.

    Args:
      out: the search's folder.
      name: of the search.
      search: the search.

    Raises:
      UserError: if optuna is missing, the folder cannot be written or holds another search.
    """

    def __init__(self, out: Path, name: str, search: Search) -> None:
        try:
            import optuna
            from optuna.storages import journal
        except ImportError:
            raise UserError(
                "optuna is not installed; expected the extra `study`: "
                "pip install 'collab-jax[study]'"
            ) from None
        self._optuna, self._out, self._search = optuna, out, search
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            (out / "trials").mkdir(parents=True, exist_ok=True)
            (out / ".claim.lock").touch()
        except OSError as error:
            raise UserError(
                f"--out {out}: {error.strerror}; expected a folder that can be written"
            ) from None
        with self._locked():
            self._storage = optuna.storages.JournalStorage(
                journal.JournalFileBackend(str(out / "journal.log"))
            )
            self._open(name)

    def _open(self, name: str) -> None:
        optuna, search = self._optuna, self._search
        found = [study.study_name for study in optuna.get_all_study_summaries(self._storage)]
        if found and found != [name]:
            raise UserError(
                f"--out {self._out}: holds the search {', '.join(found)}, not {name}; expected a "
                "new folder or this search's"
            )
        pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=search.warmup_epochs)
            if search.prune
            else optuna.pruners.NopPruner()
        )
        self.study = optuna.create_study(
            storage=self._storage, study_name=name, load_if_exists=True, pruner=pruner
        )
        identity = json.dumps(search.identity(), sort_keys=True)
        known = self.study.user_attrs.get("identity")
        if known is None:
            self.study.set_user_attr("identity", identity)
        elif known != identity:
            raise UserError(
                f"--out {self._out}: its search {name} has another recipe, grid, space, overrides "
                "or seeds; expected the same, or a new folder"
            )
        points = [*grid_points(search)]
        points += [{}] * (search.trials - len(points))
        for point in points[len(self.study.get_trials(deepcopy=False)) :]:
            self.study.enqueue_trial(point)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with FileLock(self._out / ".claim.lock") as lock:
            lock.acquire()
            yield

    def claim(self) -> Claim | None:
        """A trial for this process alone: one whose process ended first, then the next waiting.

        Returns:
          The claim, or None where no trial is left to begin.
        """
        states = self._optuna.trial.TrialState
        with self._locked():
            for frozen in self.study.get_trials(deepcopy=False, states=(states.RUNNING,)):
                lock = self._try_lock(frozen.number)
                if lock is not None:
                    trial = self._optuna.trial.Trial(self.study, frozen._trial_id)
                    return Claim(trial, self._folder(frozen.number), lock)
            waiting = self.study.get_trials(deepcopy=False, states=(states.WAITING,))
            if not waiting:
                return None
            # Its own seed for each trial, so that two processes never draw the same point, and
            # away from the points that others work on.
            self.study.sampler = self._optuna.samplers.TPESampler(
                seed=waiting[0].number, n_startup_trials=4, constant_liar=True
            )
            trial = self.study.ask()
            lock = self._try_lock(trial.number)
            assert lock is not None
            self.suggest(trial)
            return Claim(trial, self._folder(trial.number), lock)

    def suggest(self, trial: Any) -> dict[str, float]:
        """The trial's value of every key; the same at every call."""
        return {
            key: trial.suggest_float(key, bounds.low, bounds.high, log=bounds.log)
            for key, bounds in self._search.space.items()
        }

    def _folder(self, number: int) -> Path:
        return self._out / "trials" / f"{number:04d}"

    def _try_lock(self, number: int) -> FileLock | None:
        lock = FileLock(self._out / "trials" / f"{number:04d}.lock")
        if lock.try_acquire():
            return lock
        lock.release()
        return None

    def rows(self) -> list[dict[str, Any]]:
        """Every trial: number, state, value (validation error in %), values of the keys, notes."""
        return [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "validation_error": trial.value if trial.state.name == "COMPLETE" else None,
                "parameters": trial.params,
                "kind": "grid" if trial.number < len(grid_points(self._search)) else "TPE",
                **trial.user_attrs,
            }
            for trial in self.study.get_trials(deepcopy=False)
        ]
