"""A run directory: the names in it, who holds it, its config, and whether it is a run's at all."""

import errno
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from collab_jax import config as config_lib
from collab_jax.config import Config
from collab_jax.errors import RunError, UserError
from collab_jax.files.atomic import read_json, remove_temporaries, write_json
from collab_jax.files.locks import FileLock

__all__ = [
    "CHECKPOINTS",
    "CONFIG",
    "LOCK",
    "METRICS",
    "PROFILE",
    "RESULT",
    "TENSORBOARD",
    "hold",
    "open_config",
    "read_config",
    "read_result",
    "written_or_told",
]

CONFIG = "config.json"
"""The run's config."""
METRICS = "metrics.jsonl"
"""A line an epoch and split."""
RESULT = "result.json"
"""What a finished run ended with."""
CHECKPOINTS = "checkpoints"
"""Folder of the last and the best state."""
TENSORBOARD = "tensorboard"
"""Folder of the metrics as events."""
PROFILE = "profile"
"""Folder of the traces asked for."""
LOCK = ".lock"
"""Locked by the process that trains; it holds that process's name."""

_COUNTS = ("epochs", "seconds")

# A run writes into these and takes out of them what is no longer wanted.
_CHANGED = (CHECKPOINTS, TENSORBOARD, METRICS, LOCK)


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """The content of a run's `result.json`, None where there is none yet.

    Raises:
      RunError: if there is one and it is not a result: torn, not JSON, or values of other types.
    """
    path = run_dir / RESULT
    if not path.exists():
        return None
    content = read_json(path)
    if content is None:
        raise RunError(
            f"{path}: cannot be read; expected a whole JSON object. The run's own command writes "
            "it again from the last checkpoint"
        )
    for name, value in content.items():
        if name in _COUNTS and not _is_number(value):
            expected = "a number"
        elif "_error" in name and value is not None and not _is_number(value):
            expected = "a number or null"
        else:
            continue
        raise RunError(
            f"{path}: {name} = {value!r:.40}, expected {expected}. The run's own command writes it "
            "again from the last checkpoint"
        )
    missing = [name for name in _COUNTS if name not in content]
    if missing:
        raise RunError(
            f"{path}: no {' or '.join(missing)}, expected a run's result. The run's own command "
            "writes it again from the last checkpoint"
        )
    return content


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextmanager
def hold(run_dir: Path) -> Iterator[Callable[[], None]]:
    """Makes a run directory and keeps other processes out of it.

    A directory that was not there before is removed again after a user's mistake.

    Yields:
      A function that raises a RunError once the directory is no longer there.

    Raises:
      UserError: if the directory cannot be made or written, holds what is not a run's, or another
        process holds it.
      RunError: if the disk is full.
    """
    made = not run_dir.exists()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        _check_own(run_dir)
        lock = FileLock(run_dir / LOCK)
    except OSError as error:
        raise UserError(
            f"--workdir {run_dir}: {error.strerror}; expected a folder that can be written"
        ) from error

    def check() -> None:
        if not lock.is_in_place():
            raise RunError(
                f"{run_dir}: the run directory was removed or replaced under way; of this run "
                "nothing is kept there"
            )

    with lock:
        _acquire(run_dir, lock)
        for name in (CONFIG, METRICS, RESULT):
            remove_temporaries(run_dir / name)
        try:
            with _told(run_dir / LOCK):
                lock.sign()
            yield check
        except UserError:
            if made:
                _remove_begun(run_dir)
            raise


def _check_own(run_dir: Path) -> None:
    """Refuses what a run would delete, or write into, and that is not its own."""
    for name in _CHANGED:
        if (run_dir / name).is_symlink():
            raise UserError(
                f"--workdir {run_dir}: {name} is a symbolic link; expected none, as a run would "
                "change files where it leads"
            )
    if (run_dir / CONFIG).exists():
        return
    for name in (CHECKPOINTS, TENSORBOARD, METRICS, RESULT):
        path = run_dir / name
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise UserError(
                f"--workdir {run_dir}: holds {name} and no {CONFIG}, so it is not a run's; "
                "expected a new directory or a run's"
            )


def _remove_begun(run_dir: Path) -> None:
    """Removes the directory of a run that did not come to its first step, if it holds no more."""
    for name in (CONFIG, LOCK):
        (run_dir / name).unlink(missing_ok=True)
    with suppress(OSError):
        (run_dir / CHECKPOINTS).rmdir()
    with suppress(OSError):
        run_dir.rmdir()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Names the file, which the system's own message of a full disk does not."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: could not be written ({error.strerror or error}); nothing is changed"
        ) from error


@contextmanager
def written_or_told(folder: Path, *, asked_for: bool) -> Iterator[None]:
    """Writes beside a run that may be read-only: what was found is then told, and not kept.

    Raises:
      OSError: if the folder was asked for, or the disk fails otherwise.
    """
    try:
        yield
    except OSError as error:
        if asked_for or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        warnings.warn(
            f"{folder}: not written ({error.strerror}); --output DIR writes it elsewhere",
            stacklevel=4,
        )


def _acquire(run_dir: Path, lock: FileLock) -> None:
    try:
        if lock.try_acquire():
            return
    except OSError as error:
        warnings.warn(
            f"{run_dir}: this file system has no locks ({error.strerror}); keep other processes "
            "out of the directory",
            stacklevel=4,
        )
        return
    raise UserError(
        f"--workdir {run_dir}: in use by {lock.holder()}; expected a directory that no other "
        "process trains in"
    )


def read_config(run_dir: Path) -> Config:
    """Reads the config of a run.

    Raises:
      UserError: if there is none, or it is not valid.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise UserError(f"{path}: not found; {run_dir} holds no run, expected one")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected JSON") from error
    return config_lib.from_json(text, str(path))


def open_config(
    run_dir: Path,
    config: Config,
    *,
    resume: bool,
    steps_per_dispatch: int = 1,
    check_data: Callable[[], bool] = lambda: False,
) -> Config:
    """Writes the config of a new run, or checks it against that of the run to go on with.

    Args:
      run_dir: a directory that this process holds.
      config: the valid config asked for.
      resume: whether a run that is there already may go on.
      steps_per_dispatch: what 0 (automatic) means on this machine, for a new run; one that goes on
        keeps its own.
      check_data: whether the run is known to have had this config's data; a UserError where it had
        others. Known data may have another `data.name`.

    Returns:
      The run's config, `steps_per_dispatch` settled.

    Raises:
      UserError: if the directory holds a run and `resume` is False, or if keys differ that may not
        differ.
      RunError: if the disk is full.
    """
    path = run_dir / CONFIG
    if not path.exists():
        config = replace(config, steps_per_dispatch=config.steps_per_dispatch or steps_per_dispatch)
        with _told(path):
            write_json(path, json.loads(config_lib.to_json(config)))
        return config
    if not resume:
        raise UserError(f"--workdir {run_dir}: holds a run; expected a new directory")
    old = read_config(run_dir)
    if not config_lib.is_resumable(old.version):
        raise UserError(
            f"--workdir {run_dir}: config.version = {old.version} of its run; expected "
            f"{config_lib.FIRST_RESUMABLE} or later, as random numbers and units were others "
            "(--mode eval still evaluates it), or another directory"
        )
    free = ("data.name",) if check_data() else ()
    conflicts = config_lib.conflict_text(old, config, also_free=free)
    if conflicts:
        raise UserError(
            f"--workdir {run_dir}: its run has another config: {conflicts}; expected "
            "the same values, or another directory (with --config.continue_from="
            f"{run_dir} it goes on from this run)"
        )
    return replace(config, steps_per_dispatch=old.steps_per_dispatch)
