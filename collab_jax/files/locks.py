"""Locks between processes, held by the kernel: a lock ends with its process, however that ends."""

import fcntl
import os
import socket
import time
from pathlib import Path

__all__ = ["FileLock", "is_locked"]


class FileLock:
    """A lock of this process on a file, which is made and stays.

    Args:
      path: of the file.

    Raises:
      OSError: if the file cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered: what a full disk did not take must not be tried again at closing.
        self._file = path.open("ab+", buffering=0)

    def try_acquire(self) -> bool:
        """Takes the lock; False where another process has it.

        Raises:
          OSError: if the file system has no locks.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def acquire(self) -> None:
        """Takes the lock, after waiting for a process that has it; raises OSError as above."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def sign(self) -> None:
        """Writes into the file who has the lock; raises OSError on a full disk."""
        self._file.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(
            f"process {os.getpid()} on {socket.gethostname()} since {started}\n".encode()
        )

    def holder(self) -> str:
        """What the process that has the lock wrote into the file."""
        self._file.seek(0)
        return self._file.read().decode(errors="replace").strip() or "another process"

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file that is locked."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path))
        except OSError:
            return False

    def release(self) -> None:
        """Gives the lock up; once more does nothing."""
        self._file.close()

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether a process has the lock of a file; False where there is none, or none to be read."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
