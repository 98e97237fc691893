"""Checkpoints: Orbax writes them, a SHA-256 manifest of its own says which are whole."""

import json
import os
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from collab_jax.errors import RunError, UserError, cut
from collab_jax.runs.directory import CHECKPOINTS
from collab_jax.runs.manifest import MANIFEST, is_sound, write_manifest
from collab_jax.runs.ownership import Written

__all__ = [
    "Checkpointer",
    "Checkpoints",
    "NoCheckpointer",
    "checkpoint_dir",
    "complete_steps",
    "read_checkpoint",
]


class Checkpoints(Protocol):
    """What keeps a run's checkpoints."""

    def resume(self, template: Any) -> tuple[Any, dict[str, Any]] | None: ...

    def save(
        self, step: int, state: Any, record: dict[str, Any], best_step: int | None
    ) -> None: ...

    def wait(self) -> None: ...

    def close(self) -> None: ...


class NoCheckpointer:
    """Keeps nothing: of several processes, the first one alone has checkpoints."""

    def resume(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        pass

    def save(self, step: int, state: Any, record: dict[str, Any], best_step: int | None) -> None:
        pass

    def wait(self) -> None:
        pass

    def close(self) -> None:
        pass


class Checkpointer:
    """Keeps the two latest checkpoints of a run and its best one.

    A checkpoint holds the training state and a JSON record. It is written in the background; once
    it is complete, a manifest with the SHA-256 of each of its files is added. A checkpoint without
    a manifest was cut off while it was being written; one that differs from its manifest is
    damaged. Neither is restored. Those that are no longer wanted are deleted; that they are this
    run's is known by a list of the steps that it wrote, or by their manifests.

    Args:
      run_dir: the run directory.
      check: raises an error where a checkpoint's path and record are not this run's.

    Attributes:
      directory: the folder that holds one folder a step.

    Raises:
      UserError: if the folder holds a checkpoint that this run did not write.
      RunError: if it cannot be opened or written.
    """

    def __init__(
        self,
        run_dir: str | os.PathLike[str],
        check: Callable[[Path, dict[str, Any]], None] = lambda path, record: None,
    ) -> None:
        self._check = check
        self.directory = checkpoint_dir(run_dir)
        self._pinned = _Pinned()
        # Of several processes, one writes; the others do not come to Orbax's barriers.
        alone = jax.process_count() == 1
        own = None if alone else {jax.process_index()}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [checkpoint_managers.LatestN(2), self._pinned]
            ),
            cleanup_tmp_directories=True,
            # In the background, a folder that cannot be made would be waited for.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            create=alone,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes=own
            ),
        )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._written = Written(self.directory)
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise RunError(
                f"{self.directory}: cannot be opened or written ({error.strerror or error}); "
                "nothing is changed"
            ) from error
        self._sealing: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(self, step: int, state: Any, record: dict[str, Any], best_step: int | None) -> None:
        """Starts to write a checkpoint, after the one before it is complete.

        Args:
          step: its number.
          state: a pytree of arrays.
          record: what JSON can hold.
          best_step: the checkpoint to keep beside the latest ones.

        Raises:
          RunError: if this or the previous checkpoint cannot be written.
        """
        self.wait()
        self._pinned.step = best_step
        if jax.process_count() > 1:
            # Orbax refuses arrays that one process holds for itself, other than NumPy's.
            state = jax.tree.map(np.asarray, state)
        elif jax.default_backend() == "cpu":
            # The background thread would read buffers that the next step is given to overwrite.
            state = jax.tree.map(jnp.copy, state)
        try:
            self._written.add(step)
            saved = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    record=ocp.args.JsonSave({**record, "step": step}),
                ),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise self._write_error(step, error) from error
        if not saved:
            raise RunError(f"{self.directory}: step {step} was there already and was not written")
        self._sealing = threading.Thread(target=self._seal, args=(step,), daemon=True)
        self._sealing.start()

    def wait(self) -> None:
        """Waits until the last checkpoint is complete.

        Raises:
          RunError: if it cannot be written.
        """
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def close(self) -> None:
        """Waits for the last checkpoint and lets go of the folder.

        Raises:
          RunError: if it cannot be written.
        """
        try:
            self.wait()
        finally:
            # Orbax raises a failure that `wait` has told once more.
            with suppress(Exception):
                self._manager.close()

    def resume(self, template: Any) -> tuple[Any, dict[str, Any]] | None:
        """The state and record to go on with, see `restore`; None where none is complete."""
        self.remove_incomplete()
        return self.restore(template)[1:] if complete_steps(self.directory) else None

    def restore(self, template: Any) -> tuple[int, Any, dict[str, Any]]:
        """Restores the newest sound checkpoint.

        Newer ones, which are damaged, are removed with a warning that names both, as training will
        write them anew.

        Args:
          template: a pytree of arrays of the shapes, dtypes and shardings wanted.

        Returns:
          Its step, state and record.

        Raises:
          RunError: if every checkpoint is damaged, if one may not be read, or if the newest sound
            one is another program's.
        """
        complete = complete_steps(self.directory)
        for candidate in reversed(complete):
            if not is_sound(self._path(candidate)):
                continue
            state, record = self._read(candidate, template)
            self._remove_after(candidate)
            return candidate, state, record
        raise RunError(
            f"{self.directory}: every checkpoint is damaged "
            f"(step {', '.join(map(str, complete)) or 'none'}); expected one that meets its "
            f"{MANIFEST}. Remove the folder to start from the beginning"
        )

    def remove_incomplete(self) -> None:
        """Removes the checkpoint that a killed process left without a manifest.

        Raises:
          RunError: if there are several and none is complete, as no process that is killed leaves
            them.
        """
        complete = complete_steps(self.directory)
        incomplete = sorted(set(_steps(self.directory)) - set(complete))
        if len(incomplete) > 1 and not complete:
            raise RunError(
                f"{self.directory}: no checkpoint has its {MANIFEST} "
                f"(step {', '.join(map(str, incomplete))}); expected one that has. Remove the "
                "folder to start from the beginning"
            )
        for step in incomplete:
            shutil.rmtree(self._path(step))
        self._manager.reload()

    def _read(self, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
        if jax.process_count() > 1:
            template = jax.tree.map(np.asarray, template)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        path = self._path(step)
        with _restoring(path):
            record = _read_record(path)
            self._check(path, record)
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            )
            return restored["state"], record

    def _remove_after(self, step: int) -> None:
        newer = [other for other in _steps(self.directory) if other > step]
        damaged = [other for other in newer if (self._path(other) / MANIFEST).exists()]
        if damaged:
            warnings.warn(
                f"{self._path(damaged[-1])}: damaged, it differs from its {MANIFEST}; "
                f"going on from {self._path(step)}",
                stacklevel=3,
            )
        for other in newer:
            shutil.rmtree(self._path(other))
        self._manager.reload()

    def _seal(self, step: int) -> None:
        try:
            self._manager.wait_until_finished()
            write_manifest(self._path(step))
        except BaseException as error:  # a full disk can surface as any of Orbax's own errors
            self._failure = self._write_error(step, error)

    def _write_error(self, step: int, error: BaseException) -> RunError:
        sound = []
        with suppress(RunError, OSError):
            sound = [
                other
                for other in complete_steps(self.directory)
                if other != step and is_sound(self._path(other))
            ]
        kept = f"the last sound checkpoint is step {sound[-1]}" if sound else "there is none yet"
        return RunError(
            f"{self._path(step)}: the checkpoint could not be written ({_reason(error)}); {kept}"
        )

    def _path(self, step: int) -> Path:
        return self.directory / str(step)


class _Pinned:
    """An Orbax preservation policy that keeps one given step."""

    def __init__(self) -> None:
        self.step: int | None = None

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        del context
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def checkpoint_dir(run_dir: str | os.PathLike[str]) -> Path:
    """The folder of a run's checkpoints."""
    return Path(run_dir).absolute() / CHECKPOINTS


def complete_steps(directory: Path) -> list[int]:
    """The complete checkpoints, sound or damaged, in ascending order."""
    return [step for step in _steps(directory) if (directory / str(step) / MANIFEST).exists()]


def read_checkpoint(
    directory: Path, step: int, template: Callable[[dict[str, Any]], Any]
) -> tuple[Any, dict[str, Any]]:
    """Reads a part of a checkpoint, after checking it against its manifest.

    Args:
      directory: the folder of the checkpoints.
      step: which one.
      template: maps the checkpoint's record to the shapes and dtypes of the part of the state that
        is wanted, a dictionary; an empty one reads the record alone.

    Returns:
      That part, and the record.

    Raises:
      UserError: if there is no checkpoint of that step.
      RunError: if it is damaged.
    """
    complete = complete_steps(directory)
    path = directory / str(step)
    if step not in complete:
        raise UserError(
            f"checkpoint: no step {step} in {directory}; "
            f"expected one of {', '.join(map(str, complete)) or 'none'}"
        )
    if not is_sound(path):
        raise RunError(f"{path}: damaged, it differs from its {MANIFEST}")
    with _restoring(path):
        record = _read_record(path)
        wanted = template(record)
        if not wanted:
            return {}, record
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        restore_args = jax.tree.map(
            lambda leaf: ocp.ArrayRestoreArgs(sharding=device, global_shape=leaf.shape), wanted
        )
        state = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(
            path / "state",
            args=ocp.args.PyTreeRestore(
                item=wanted, restore_args=restore_args, partial_restore=True
            ),
        )
    return state, record


@contextmanager
def _restoring(path: Path) -> Iterator[None]:
    """One line for whatever Orbax makes of files that it, or this version, did not write."""
    try:
        yield
    except (RunError, UserError):
        raise
    except Exception as error:
        raise RunError(
            f"{path}: as it was written, but not what this version of collab_jax restores "
            f"({_reason(error)}); nothing is changed"
        ) from error


def _read_record(path: Path) -> dict[str, Any]:
    # Orbax would wait for the other processes, and the first one reads this alone.
    record = json.loads((path / "record" / "metadata").read_bytes())
    if not isinstance(record, dict):
        raise TypeError(f"its record is a {type(record).__name__}, not a JSON object")
    # Checkpoints of version 0.1.0 do not say it.
    if str(record.get("step", path.name)) != path.name:
        raise RunError(
            f"{path}: this checkpoint was written as step {record['step']}; expected a folder of "
            "that name. Nothing is changed"
        )
    return record


def _reason(error: BaseException) -> str:
    """The first line of an error's text; Orbax's go on for pages."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    # TensorStore puts the path of every layer first and what the system said last.
    said = re.search(r"([^:]+) \[os_error_code='\d+'", text)
    return said[1].strip() if said else cut(text, 300)


def _steps(directory: Path) -> list[int]:
    names = [path.name for path in directory.glob("*")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())
