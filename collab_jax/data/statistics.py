"""Mean and standard deviation of the training images, in one streamed pass."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np

from collab_jax.data.arrays import chunks
from collab_jax.files import atomic

__all__ = ["cached_mean_and_std", "mean_and_std"]

_log = logging.getLogger(__name__)


def mean_and_std(
    images: np.ndarray, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Per-channel mean and population standard deviation of images / 255.

    The sums are whole numbers and hence exact. A channel of one value only gets a deviation of 1,
    so that its normalised values are zero.

    Args:
        images: uint8 (N, H, W, C), may be memory-mapped.
        rows: the images to use, all where None.

    Returns:
        float32 (C,) mean and float32 (C,) standard deviation.
    """
    num_images = len(images) if rows is None else len(rows)
    _, height, width, channels = images.shape
    totals = np.zeros(channels, np.uint64)
    squares = np.zeros(channels, np.uint64)
    # At most 2**16 images, or the sum of their squares could leave 32 bits.
    for part in chunks(num_images, max(256, height * width * channels)):
        chunk = np.asarray(images[part] if rows is None else images[rows[part]])
        totals += chunk.sum(axis=0, dtype=np.uint32).sum(axis=(0, 1), dtype=np.uint64)
        squared = np.multiply(chunk, chunk, dtype=np.uint16)
        squares += squared.sum(axis=0, dtype=np.uint32).sum(axis=(0, 1), dtype=np.uint64)
    count = num_images * height * width
    mean = [int(total) / count / 255 for total in totals]
    # n * sum(x^2) - sum(x)^2 in Python's whole numbers: no cancellation.
    variance = [
        (count * int(square) - int(total) ** 2) / count**2
        for total, square in zip(totals, squares, strict=True)
    ]
    std = [value**0.5 / 255 if value > 0 else 1.0 for value in variance]
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)


def cached_mean_and_std(
    images: np.ndarray, rows: np.ndarray | None, directory: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """`mean_and_std`, kept beside the cached arrays under a name that tells the subset.

    Args:
        images: uint8 (N, H, W, C), may be memory-mapped.
        rows: the images to use, all where None.
        directory: the folder of the cached arrays, None where there is none.

    Returns:
        float32 (C,) mean and float32 (C,) standard deviation.
    """
    if directory is None:
        return mean_and_std(images, rows)
    suffix = ""
    if rows is not None:
        digest = hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes())
        suffix = "-" + digest.hexdigest()[:16]
    path = directory / f"statistics{suffix}.json"
    stored = _read(path, images.shape[-1])
    if stored is not None:
        return stored
    mean, std = mean_and_std(images, rows)
    try:
        atomic.write_json(path, {"mean": mean.tolist(), "std": std.tolist()})
    except OSError as error:
        # A shared cache may be read-only; the next run then computes them again.
        _log.info("%s: not written (%s)", path, error.strerror)
    return mean, std


def _read(path: Path, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The stored statistics, None where there are none or they cannot be right."""
    try:
        stored = json.loads(path.read_text())
        mean, std = (np.asarray(stored[key], np.float32) for key in ("mean", "std"))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if mean.shape != (channels,) or std.shape != (channels,):
        return None
    plausible = np.all((mean >= 0) & (mean <= 1) & (std > 0) & (std <= 1))
    return (mean, std) if plausible else None
