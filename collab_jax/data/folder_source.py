"""Images in folders, a folder a class: train/CLASS/... and test/CLASS/..., or CLASS/..."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from collab_jax.data.image_files import SPLITS, Listing
from collab_jax.errors import UserError

__all__ = ["ENDINGS", "listing"]

ENDINGS = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""How the names of image files end, in lower case."""

_log = logging.getLogger(__name__)


def listing(folder: Path, name: str) -> Listing:
    """The images of a folder, by class and then by path.

    Args:
        folder: with train/CLASS/ and test/CLASS/ (or val/CLASS/), or with CLASS/ alone; images lie
            at any depth below their class.
        name: the data set's name, for messages.

    Raises:
        UserError: no such folder, no classes, a class without images, or one in the test split
            that the training split lacks.
    """
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "no such folder"
        raise UserError(
            f"data.name = {name}: {found}, expected a folder, and in it one for each class"
        )
    inner = _folders(folder)
    splits = {SPLITS[path.name.lower()]: path for path in inner if path.name.lower() in SPLITS}
    splits = {split: splits[split] for split in ("train", "test", "validation") if split in splits}
    if splits and "train" not in splits:
        raise UserError(f"{folder}: no folder train beside {', '.join(map(str, splits.values()))}")
    others = [path.name for path in inner if path not in splits.values()]
    if splits and others:
        _log.warning("%s: left out, neither train, test nor val: %s", folder, ", ".join(others[:5]))
    splits = splits or {"": folder}
    first = splits.get("train", folder)
    class_names = tuple(path.name for path in _folders(first))
    if not class_names:
        raise UserError(f"{first}: no folders, expected one for each class")
    places = {label: place for place, label in enumerate(class_names)}
    paths, labels, belongs, left_out = [], [], [], []
    for split, top in splits.items():
        files = [Path(entry.path) for entry in _shown(top)]
        left_out += [path for path in files if path.suffix.lower() in ENDINGS]
        for of_class in _folders(top):
            if of_class.name not in places:
                raise UserError(f"{of_class}: no such class in {first}")
            before = len(paths)
            for path in _files(of_class, (top.resolve(),)):
                if path.suffix.lower() in ENDINGS:
                    paths.append(path)
                else:
                    left_out.append(path)
            if len(paths) == before:
                raise UserError(
                    f"{of_class}: no images, expected files that end in one of "
                    f"{', '.join(sorted(ENDINGS))}"
                )
            labels += [places[of_class.name]] * (len(paths) - before)
            belongs += [split] * (len(paths) - before)
    if left_out:
        _log.warning(
            "%s: left out, no image by its name or in no class's folder: %s%s",
            *(folder, left_out[0], f" and {len(left_out) - 1} more" if left_out[1:] else ""),
        )
    return Listing(
        name=name,
        labels=np.asarray(labels),
        splits=belongs,
        class_names=class_names,
        identity=[identity(path, folder) for path in paths],
        open=lambda row: open(paths[row], "rb"),
        where=lambda row: str(paths[row]),
    )


def identity(path: Path, folder: Path) -> str:
    """What changes when a file does.

    Raises:
        UserError: the file is not there, or is none, such as a pipe, which would be waited for.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected an image") from None
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is no regular file, expected an image")
    return f"{os.path.relpath(path, folder)}\n{status.st_size}\n{status.st_mtime_ns}"


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _shown(folder) if entry.is_dir()]


def _files(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Every file below a folder that is not hidden, links followed.

    Args:
        folder: where to look.
        above: the folders on the way to it, links resolved.
    """
    real = folder.resolve()
    if any(other.is_relative_to(real) for other in above):
        raise UserError(
            f"{folder}: leads back to a folder that it lies in, expected none, as each image would "
            "be found again and again"
        )
    entries = _shown(folder)
    yield from (Path(entry.path) for entry in entries if not entry.is_dir())
    for entry in entries:
        if entry.is_dir():
            yield from _files(Path(entry.path), (*above, real))


def _shown(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden, by name."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}), expected a folder of images"
        ) from None
    return sorted(shown, key=lambda entry: entry.name)
