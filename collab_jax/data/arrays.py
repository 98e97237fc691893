"""What every source of data hands over: two labelled splits as arrays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from collab_jax.errors import UserError

__all__ = ["FILES", "Arrays", "area_downscale", "chunks", "sha256", "target_shape"]

FILES = ("train_images", "train_labels", "test_images", "test_labels")
"""The arrays of a data set, by their names in `Arrays` and in the cache."""

_CHUNK_BYTES = 2**24


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """The splits of a data set as arrays, in memory or memory-mapped.

    Attributes:
        train_images: uint8 (N, H, W, C).
        train_labels: int32 (N,).
        test_images: uint8 (M, H, W, C).
        test_labels: int32 (M,).
        class_names: the name of each class.
        directory: where the arrays are cached, None where they are not.
        checksums: SHA-256 of each array by name, where they are known already.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    directory: Path | None = None
    checksums: Mapping[str, str] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content: type, shape and bytes of the arrays, and the class names.

        Neither where the arrays lie nor what they were read from plays a part.
        """
        known = self.checksums or {name: sha256(getattr(self, name)) for name in FILES}
        content = [
            [name, array.dtype.name, array.shape, known[name]]
            for name, array in ((name, getattr(self, name)) for name in FILES)
        ]
        text = json.dumps([content, self.class_names])
        return hashlib.sha256(text.encode()).hexdigest()


def sha256(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in C order, in bounded memory."""
    digest = hashlib.sha256()
    for part in chunks(len(array), array[:1].nbytes):
        digest.update(np.ascontiguousarray(array[part]).data)
    return digest.hexdigest()


def chunks(num_images: int, image_bytes: int) -> Iterator[slice]:
    """Slices over images whose bytes fit in 16 MiB, to bound the memory of a pass over them."""
    size = max(1, _CHUNK_BYTES // max(1, image_bytes))
    for start in range(0, num_images, size):
        yield slice(start, min(start + size, num_images))


def target_shape(shape: tuple[int, ...], image_size: int, name: str) -> tuple[int, ...]:
    """The shape of an image after reduction to image_size x image_size; 0 keeps its own.

    Raises:
        UserError: images that are not square, or smaller than `image_size`.
    """
    if image_size == 0:
        return shape
    height, width, channels = shape
    if height != width or not 0 < image_size <= height:
        raise UserError(
            f"data.image_size = {image_size}: expected 0 (their own size) or at most the side of "
            f"square images, but those of {name} are {height} x {width}"
        )
    return (image_size, image_size, channels)


def area_downscale(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Reduced images, each new pixel the mean over the area that it covers.

    Args:
        images: uint8 (B, H, W, C).
        height: the new height, at most H.
        width: the new width, at most W.

    Returns:
        uint8 (B, height, width, C), rounded to the nearest.
    """
    if images.shape[1:3] == (height, width):
        return images
    rows = _overlaps(images.shape[1], height)
    columns = _overlaps(images.shape[2], width)
    reduced = np.einsum("ph,bhwc,qw->bpqc", rows, images.astype(np.float32), columns, optimize=True)
    return np.floor(reduced + 0.5).clip(0, 255).astype(np.uint8)


def _overlaps(old: int, new: int) -> np.ndarray:
    """(new, old): the share of each new pixel that each old pixel fills."""
    edges = np.arange(new + 1) * (old / new)
    left = np.maximum(edges[:-1, None], np.arange(old)[None, :])
    right = np.minimum(edges[1:, None], np.arange(1, old + 1)[None, :])
    return (np.maximum(right - left, 0.0) * (new / old)).astype(np.float32)
