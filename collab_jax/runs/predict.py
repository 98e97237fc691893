"""A trained network's answers for image files."""

import os
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path

import numpy as np

from collab_jax.data import DataInfo, decode
from collab_jax.errors import UserError
from collab_jax.runs.load import load_run

__all__ = ["run"]

_BATCH = 250
"""Images in memory at once."""


def run(
    workdir: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    *,
    checkpoint: str = "best",
) -> Iterator[tuple[Path, str, float]]:
    """The most probable class of each image file.

    Files are read as those of a data set in folders: upright, in the channels that the network
    takes, and where the size is another, the middle square resized.

    Args:
      workdir: the run directory.
      images: paths of image files.
      checkpoint: best, last or a step.

    Returns:
      In the order given, each path with the class's name and its probability.

    Raises:
      UserError: a file that is not there, no image, damaged, or of another size than a network
        takes whose images are not square; if there is no run, or no such checkpoint.
      RunError: if the checkpoint is damaged.
    """
    paths = [Path(os.path.expanduser(image)) for image in images]
    for path in paths:  # before the network is restored and compiled
        with _opened(path) as file:
            decode.read_header(file, str(path))
    restored = load_run(Path(workdir), checkpoint)
    for start in range(0, len(paths), _BATCH):
        some = paths[start : start + _BATCH]
        found = restored.predict(np.stack([_pixels(path, restored.info) for path in some]))
        for path, probabilities in zip(some, found, strict=True):
            best = int(probabilities.argmax())
            yield path, restored.class_names[best], float(probabilities[best])


def _opened(path: Path) -> BufferedReader:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected an image file")
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected an image") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read ({reason}), expected an image") from None


def _pixels(path: Path, info: DataInfo) -> np.ndarray:
    height, width, channels = info.image_shape
    if channels not in (1, 3):
        raise UserError(
            f"{path}: the network takes images of {channels} channels, expected 1 or 3 to predict "
            "from image files"
        )
    with _opened(path) as file:
        pixels = decode.decode(file, channels, str(path))
    if pixels.shape == info.image_shape:
        return pixels
    if height != width:
        found = f"{pixels.shape[0]} x {pixels.shape[1]}"
        raise UserError(f"{path}: {found} pixels, expected {height} x {width} (height x width)")
    return decode.square(pixels, height)
