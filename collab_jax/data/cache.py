"""Arrays as .npy files in a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from collab_jax.data.arrays import FILES, Arrays, sha256
from collab_jax.errors import RunError, UserError, reason
from collab_jax.files import atomic
from collab_jax.files.locks import FileLock

__all__ = [
    "NpyWriter",
    "describe",
    "description",
    "disk_errors",
    "exists",
    "locked",
    "open_arrays",
    "writing",
]

_DESCRIPTION = "arrays.json"

_log = logging.getLogger(__name__)


def exists(directory: Path) -> bool:
    """Whether a folder of cached arrays stands there."""
    return (directory / _DESCRIPTION).is_file()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a folder to be made, waiting for another process that holds it.

    The lock saves the work of making the folder twice; that it is sound rests on the rename.
    """
    with disk_errors(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(Path(f"{directory}.lock"))
    with lock:
        # A file system may have no locks.
        with contextlib.suppress(OSError):
            if not lock.try_acquire():
                _log.warning("waiting for another process that makes %s", directory)
                lock.acquire()
            # Under the lock no one is writing: what lies there is from a killed process.
            atomic.remove_temporaries(directory)
        yield


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[Path]:
    """A temporary folder that becomes `directory` at the end, or vanishes on an error.

    Where another process was faster its folder stays.

    Raises:
        UserError: the folder may not be written.
        RunError: the disk is full or fails.
    """
    with disk_errors(directory):
        try:
            with atomic.new_folder(directory) as temporary:
                yield temporary
        except OSError:
            if not exists(directory):
                raise


@contextlib.contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Errors of one line for what the system says of a full disk or a folder not to be written.

    Raises:
        UserError: the folder may not be written.
        RunError: the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(
                f"{directory}: cannot be written ({said}), expected a folder of one's own as "
                "data.dir"
            ) from None
        raise RunError(f"{directory}: cannot be written ({said}); nothing is kept") from None


class NpyWriter:
    """Writes an array to a .npy file chunk by chunk.

    Plain writes and not a memory map: on a full disk they raise an error where a map kills the
    process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]):
        self._shape, self._dtype, self._rows = shape, np.dtype(dtype), 0
        self._file = open(path, "wb")
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, rows: np.ndarray) -> None:
        """Append rows of the array."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._shape[1:]:
            raise ValueError(
                f"rows: {rows.dtype} {rows.shape}, expected {self._dtype} (n, *{self._shape[1:]})"
            )
        self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def close(self) -> None:
        """Put the file on the disk.

        Raises:
            ValueError: rows are missing.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self._rows != self._shape[0]:
            raise ValueError(f"{self._rows} rows were written, expected {self._shape[0]}")

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


def describe(directory: Path, class_names: tuple[str, ...], **about: Any) -> None:
    """Write the description that makes a folder one of cached arrays; the last file to write.

    It holds a checksum of each file, as a flipped pixel or label would train unnoticed, and the
    SHA-256 of each array, which takes longer, with the fingerprint, which covers the class names.
    """
    sums = {name: _checksum(directory / f"{name}.npy") for name in FILES}
    arrays: dict[str, Any] = {name: _mapped(directory, name) for name in FILES}
    known = {name: sha256(array) for name, array in arrays.items()}
    fingerprint = Arrays(**arrays, class_names=class_names, checksums=known).fingerprint
    about |= {"crc32": sums, "sha256": known, "fingerprint": fingerprint}
    atomic.write_json(directory / _DESCRIPTION, {"class_names": class_names, **about})


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            total = zlib.crc32(chunk, total)
    return total


def _mapped(directory: Path, name: str) -> np.ndarray:
    return np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def description(directory: Path) -> dict[str, Any]:
    """What `describe` has written.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    return json.loads((directory / _DESCRIPTION).read_text(encoding="utf-8"))


def open_arrays(directory: Path) -> Arrays:
    """The cached arrays of a folder, memory-mapped.

    Raises:
        UserError: they are damaged; the message names the folder and says to delete it.
    """
    try:
        about = description(directory)
        class_names = tuple(about["class_names"])
        arrays = {name: _mapped(directory, name) for name in FILES}
        _check(arrays, class_names)
        # Folders that collab_jax 0.1 has written lack it.
        known = about.get("sha256")
        whole = Arrays(**arrays, class_names=class_names, directory=directory, checksums=known)
        if known is not None and whole.fingerprint != about["fingerprint"]:
            raise ValueError("class_names or sha256 differ from the fingerprint")
        for name, expected in about.get("crc32", {}).items():
            if _checksum(directory / f"{name}.npy") != expected:
                raise ValueError(f"{name}.npy differs from its checksum")
    # Damaged bytes make NumPy and the JSON reader raise errors of many kinds.
    except Exception as error:
        raise UserError(
            f"{directory}: the cached arrays are damaged ({reason(error)}), expected them as they "
            "were written; delete this folder and they are made again"
        ) from None
    return whole


def _check(arrays: dict[str, np.ndarray], class_names: tuple[str, ...]) -> None:
    if not class_names or not all(isinstance(name, str) for name in class_names):
        raise ValueError("class_names is no list of names")
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.ndim != 4 or not images.flags.c_contiguous:
            raise ValueError(f"{split}_images is {images.dtype} {images.shape}")
        if labels.dtype != np.int32 or labels.shape != images.shape[:1] or not labels.size:
            raise ValueError(f"{split}_labels is {labels.dtype} {labels.shape}")
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise ValueError(f"{split}_labels leave 0..{len(class_names) - 1}")
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise ValueError("training and test images differ in shape")
