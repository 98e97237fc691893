"""Encoded images, wherever they come from, to cached arrays: decoded once, several at a time."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from collab_jax.data import cache, subsets
from collab_jax.data.arrays import Arrays, chunks
from collab_jax.data.decode import Header, decode, read_header, square
from collab_jax.data.progress import progress
from collab_jax.errors import UserError

__all__ = ["SPLITS", "Listing", "load"]

SPLITS = {
    "train": "train",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""Splits by the names that they go by."""
# Raised where other arrays come of the same files.
_FORMAT = 1

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """Encoded images with labels.

    Attributes:
        name: the data set's name, for messages.
        labels: int (N,), places in `class_names`.
        splits: of each image one of `SPLITS`' values, or "" where it belongs to none.
        class_names: m names.
        identity: what changes when an image does, such as size and time of its file.
        open: the encoded image of a row.
        where: the name of a row's image, for messages.
    """

    name: str
    labels: np.ndarray
    splits: Sequence[str]
    class_names: tuple[str, ...]
    identity: Iterable[str]
    open: Callable[[int], io.BufferedReader | io.BytesIO]
    where: Callable[[int], str]


def load(listing: Listing, root: Path, image_size: int = 0, test: float = 0.0) -> Arrays:
    """The images as cached arrays, decoded on first use.

    Args:
        listing: the images, in the order that the arrays keep.
        root: folder of cached data.
        image_size: side to resize the images to, their middle squares where they are not square;
            0: their own, which must be the same for all.
        test: the fraction of the images to test with where the listing has no test split; else 0.

    Returns:
        The arrays, memory-mapped. Grey images have one channel where all are grey, else all have
        three. The test split is `test`, or `validation` where there is none.

    Raises:
        UserError: the splits or classes do not do, sizes differ without an `image_size`, or an
            image is damaged; the message names it.
        RunError: the disk is full.
    """
    rows = _split(listing, test)
    directory = root / "arrays" / "images" / _cache_name(listing, rows, image_size)
    if not cache.exists(directory):
        with cache.locked(directory):
            if not cache.exists(directory):
                _fill(directory, listing, rows, image_size)
    return cache.open_arrays(directory)


def _split(listing: Listing, test: float) -> dict[str, np.ndarray]:
    """The rows of the training and of the test split."""
    name, splits = listing.name, np.asarray(listing.splits)
    there = set(listing.splits)
    held = next((split for split in ("test", "validation") if split in there), None)
    if held and test:
        raise UserError(f"data.test = {test:g}: expected 0 for {name}, which has a {held} split")
    if held is None and not test:
        raise UserError(
            f"data.test = 0: {name} has no test split, expected one, or data.test=0.2 to test with "
            "a fifth of it"
        )
    if held and there & {"train", ""} == set():
        raise UserError(f"{name} has no training split, only {held}")
    if held == "test" and "validation" in there:
        _log.warning("%s: its validation split is left out, its test split is used", name)
    labels = listing.labels
    if held is None:
        chosen = subsets.hold_out_test(labels, test, name=name)
        rows = {"train": np.delete(np.arange(len(labels)), chosen), "test": chosen}
    else:
        rows = {
            "train": np.flatnonzero((splits == "train") | (splits == "")),
            "test": np.flatnonzero(splits == held),
        }
    present = np.bincount(labels[rows["train"]], minlength=len(listing.class_names))
    if not present.all():
        missing = listing.class_names[int(present.argmin())]
        raise UserError(f"{name} has no training image of class {missing!r}, expected one or more")
    if len(present) < 2:
        raise UserError(
            f"{name} has the class {listing.class_names[0]!r} alone, expected at least two"
        )
    return rows


def _cache_name(listing: Listing, rows: dict[str, np.ndarray], image_size: int) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, image_size, listing.class_names]).encode())
    for values in (listing.labels, rows["train"], rows["test"]):
        digest.update(np.ascontiguousarray(values, "<i8").data)
    for item in listing.identity:
        digest.update(item.encode("utf-8", "surrogateescape") + b"\0")
    readable = re.sub(r"[^A-Za-z0-9]+", "-", listing.name)[-40:].strip("-")
    return f"{readable}-{digest.hexdigest()[:16]}"


def _fill(directory: Path, listing: Listing, rows: dict[str, np.ndarray], image_size: int) -> None:
    every = np.concatenate([rows["train"], rows["test"]])
    with ThreadPoolExecutor(_workers()) as pool:
        with progress(f"reading the headers of {len(every)} images", len(every)) as advance:
            headers = []
            for header in pool.map(lambda row: _header(listing, row), every.tolist()):
                headers.append(header)
                advance(1)
        shape = _shape(listing, every, headers, image_size)

        def image(row: int) -> np.ndarray:
            with listing.open(row) as file:
                pixels = decode(file, shape[2], listing.where(row))
            return square(pixels, image_size) if image_size else pixels

        title = f"decoding {len(every)} images to {shape[0]} x {shape[1]} (once)"
        with progress(title, len(every)) as advance, cache.writing(directory) as temporary:
            for split, chosen in rows.items():
                with cache.NpyWriter(
                    temporary / f"{split}_images.npy", (len(chosen), *shape), np.uint8
                ) as writer:
                    for part in chunks(len(chosen), math.prod(shape)):
                        images = []
                        for pixels in pool.map(image, chosen[part].tolist()):
                            images.append(pixels)
                            advance(1)
                        writer.write(np.stack(images))
                labels = listing.labels[chosen].astype(np.int32)
                np.save(temporary / f"{split}_labels.npy", labels)
            cache.describe(temporary, listing.class_names, source=listing.name)


def _workers() -> int:
    """Pillow decodes outside of Python's lock: a thread for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _header(listing: Listing, row: int) -> Header:
    with listing.open(row) as file:
        return read_header(file, listing.where(row))


def _shape(
    listing: Listing, rows: np.ndarray, headers: list[Header], image_size: int
) -> tuple[int, int, int]:
    """(H, W, C) of every image in the arrays."""
    channels = 1 if all(header.grey for header in headers) else 3
    if image_size:
        return image_size, image_size, channels
    sizes = [(header.height, header.width) for header in headers]
    counts = collections.Counter(sizes)
    if len(counts) > 1:
        (usual, _), *_ = counts.most_common(1)
        other = next(i for i, size in enumerate(sizes) if size != usual)
        raise UserError(
            f"data.image_size = 0: expected the side to resize the images of {listing.name} to, "
            f"such as 32, because they differ: {listing.where(int(rows[other]))} is "
            f"{sizes[other][0]} x {sizes[other][1]}, others are {usual[0]} x {usual[1]} "
            "(height x width)"
        )
    return *sizes[0], channels
