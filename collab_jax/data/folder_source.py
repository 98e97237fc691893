"""Images in folders, a folder a class: train/CLASS/... and test/CLASS/..., or CLASS/..."""

from __future__ import annotations

import logging
import os
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
        raise UserError(f"data.name = {name}: no such folder")
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
        left_out += [path for path in top.iterdir() if path.suffix.lower() in ENDINGS]
        for of_class in _folders(top):
            if of_class.name not in places:
                raise UserError(f"{of_class}: no such class in {first}")
            before = len(paths)
            for path in _files(of_class):
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
            "%s: %d files left out, no images by their names or in no class: %s%s",
            *(folder, len(left_out), left_out[0], " ..." if len(left_out) > 1 else ""),
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
        UserError: the file is not there.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected an image") from None
    return f"{os.path.relpath(path, folder)}\n{status.st_size}\n{status.st_mtime_ns}"


def _folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, links followed."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))
