"""Which checkpoints a run wrote: those that it may delete."""

import os
from pathlib import Path

from collab_jax.errors import UserError
from collab_jax.runs.manifest import is_sound

__all__ = ["Written"]

_LIST = ".written"
_TEMPORARY = ".orbax-checkpoint-tmp"


class Written:
    """A list, beside the checkpoints, of the step of each one that a run began to write.

    Args:
      directory: the folder of the run's checkpoints.

    Raises:
      UserError: if there are checkpoints, or unfinished ones, that the run did not write: neither
        listed nor as their manifests say.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _LIST
        # What follows the last end of a line was cut off by a kill; its checkpoint was not begun.
        lines = self._path.read_bytes().split(b"\n")[:-1] if self._path.is_file() else []
        self._steps = {int(line) for line in lines if line.isdigit()}
        for path in sorted(directory.iterdir()):
            name, temporary, _ = path.name.partition(_TEMPORARY)
            if not (name.isascii() and name.isdigit()):
                continue
            listed = name == str(int(name)) and int(name) in self._steps
            if path.is_symlink() or not (listed or (not temporary and is_sound(path))):
                raise UserError(
                    f"{path}: not written by this run, which keeps its last and best checkpoints "
                    "here and deletes others; expected it elsewhere"
                )

    def add(self, step: int) -> None:
        """Lists a step, before anything of its checkpoint is written; OSError on a full disk."""
        if step not in self._steps:
            with self._path.open("ab", buffering=0) as file:
                file.write(f"{step}\n".encode())
                os.fsync(file.fileno())
            self._steps.add(step)
