"""The folder of compiled programs, which JAX keeps from one run to the next."""

from contextlib import suppress
from pathlib import Path

from filelock import FileLock

__all__ = ["heal"]

_PROGRAM, _USED = "-cache", "-atime"
_LOCK = ".lockfile"


def heal(folder: Path) -> None:
    """Removes programs without the file that holds the time of their last use.

    A process that was killed left them, whole or not. JAX's cache with a bounded size, which
    compares the times before it writes, writes no program any more beside one (its issue 39880).

    Args:
      folder: of the cache; it need not be there.
    """
    # Without a disk that takes the changes, JAX says itself that it keeps nothing.
    with suppress(OSError):
        if not _without_time(folder):
            return
        with FileLock(folder / _LOCK, timeout=10):
            for program in _without_time(folder):
                program.unlink(missing_ok=True)


def _without_time(folder: Path) -> list[Path]:
    return [
        program
        for program in folder.glob(f"*{_PROGRAM}")
        if not program.with_name(program.name.removesuffix(_PROGRAM) + _USED).exists()
    ]
