"""A run directory: who holds it, its config, and files that are whole or absent."""

import fcntl
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

from collab_jax import config as config_lib
from collab_jax.config import Config
from collab_jax.errors import RunError, UserError

__all__ = ["hold", "open_config", "read_config", "read_json", "write_json"]

CONFIG = "config.json"
LOCK = ".lock"


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no whole one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file so that a reader sees the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def hold(run_dir: Path) -> Iterator[Callable[[], None]]:
    """Makes a run directory and keeps other processes out of it.

    The lock is the kernel's, so that it ends with its process however that ends. A directory that
    was not there before is removed again after a user's mistake.

    Yields:
      A function that raises a RunError once the directory is no longer there.

    Raises:
      UserError: if the directory cannot be made or written, or another process holds it.
      RunError: if the disk is full.
    """
    made = not run_dir.exists()
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk did not take must not be tried again at closing.
        lock = (run_dir / LOCK).open("ab+", buffering=0)
    except OSError as error:
        raise UserError(
            f"--workdir {run_dir}: {error.strerror}; expected a folder that can be written"
        ) from error

    def check() -> None:
        try:
            same = os.path.samestat(os.fstat(lock.fileno()), os.stat(run_dir / LOCK))
        except OSError:
            same = False
        if not same:
            raise RunError(
                f"{run_dir}: the run directory was removed or replaced under way; of this run "
                "nothing is kept there"
            )

    with lock:
        _lock(run_dir, lock)
        # A process killed between the two halves of `write_json` left it.
        for stale in run_dir.glob(".*.json.[0-9]*"):
            stale.unlink(missing_ok=True)
        try:
            with _told(run_dir / LOCK):
                lock.truncate(0)
                started = time.strftime("%Y-%m-%d %H:%M:%S")
                holder = f"process {os.getpid()} on {socket.gethostname()} since {started}\n"
                lock.write(holder.encode())
            yield check
        except UserError:
            if made:
                shutil.rmtree(run_dir, ignore_errors=True)
            raise


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Names the file, which the system's own message of a full disk does not."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: could not be written ({error.strerror or error}); nothing is changed"
        ) from error


def _lock(run_dir: Path, lock: FileIO) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().decode(errors="replace").strip() or "another process"
        raise UserError(
            f"--workdir {run_dir}: in use by {holder}; expected a directory that no other "
            "process trains in"
        ) from error
    except OSError as error:
        warnings.warn(
            f"{run_dir}: this file system has no locks ({error.strerror}); keep other processes "
            "out of the directory",
            stacklevel=4,
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
    run_dir: Path, config: Config, *, resume: bool, steps_per_dispatch: int = 1
) -> Config:
    """Writes the config of a new run, or checks it against that of the run to go on with.

    Args:
      run_dir: a directory that this process holds.
      config: the valid config asked for.
      resume: whether a run that is there already may go on.
      steps_per_dispatch: what 0 (automatic) means on this machine, for a new run; one that goes on
        keeps its own.

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
    conflicts = config_lib.conflict_text(old, config)
    if conflicts:
        raise UserError(
            f"--workdir {run_dir}: its run has another config: {conflicts}; expected "
            "the same values, or another directory (with --config.continue_from="
            f"{run_dir} it goes on from this run)"
        )
    return replace(config, steps_per_dispatch=old.steps_per_dispatch)
