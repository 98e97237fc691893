"""Files and folders that a reader sees whole, old or new, or not at all."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "json_text",
    "new_folder",
    "read_json",
    "remove_temporaries",
    "temporary_neighbour",
    "write_bytes",
    "write_json",
]


def temporary_neighbour(path: Path) -> Path:
    """A path beside a file or folder for what is to take its place."""
    return path.with_name(f".{path.name}.new-{secrets.token_hex(6)}")


def remove_temporaries(path: Path) -> None:
    """Removes what killed processes left of a file or folder, and of those named after it.

    For a process that keeps others from writing them.
    """
    for stale in path.parent.glob(f".{path.name}*.new-*"):
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            with suppress(OSError):
                stale.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, which is on disk when this returns.

    Raises:
      OSError: if the disk does not take it; the old file stays.
    """
    temporary = temporary_neighbour(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file as `write_bytes` does, see `json_text`."""
    write_bytes(path, f"{json_text(content, indent=2)}\n".encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no whole one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def json_text(content: Any, *, indent: int | None = None) -> str:
    """JSON, in which there is no NaN and no infinity: null stands for them."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes its place at the end, or vanishes on an error.

    Raises:
      OSError: if it cannot be made, or if a folder with content stands in its place.
    """
    temporary = temporary_neighbour(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
