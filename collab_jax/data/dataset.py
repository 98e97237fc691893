"""A data set as the training uses it: splits, classes and normalisation statistics."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import numpy as np

from collab_jax.data import (
    archives,
    csv_source,
    digits,
    folder_source,
    hf_source,
    image_files,
    npz_source,
    subsets,
    tfds_source,
)
from collab_jax.data.archive_formats import ARCHIVES
from collab_jax.data.arrays import Arrays
from collab_jax.data.statistics import cached_mean_and_std
from collab_jax.errors import UserError

__all__ = ["Dataset", "Split", "load"]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images with labels, read by `take`; the images may be memory-mapped.

    Attributes:
        source: uint8 (M, H, W, C), the array that holds the images.
        labels: int32 (N,).
        rows: int (N,), where in `source` the images are; None: in the same order, N = M.
    """

    source: np.ndarray
    labels: np.ndarray
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        height, width, channels = self.source.shape[1:]
        return height, width, channels

    @property
    def nbytes(self) -> int:
        """Bytes of all images of the split."""
        return len(self) * math.prod(self.image_shape)

    @property
    def images(self) -> np.ndarray:
        """uint8 (N, H, W, C): all images; a split of a part of `source` is copied to memory."""
        return self.source if self.rows is None else self.source[self.rows]

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some of the examples, copied to memory.

        Args:
            indices: int (B,), from 0 to N - 1.

        Returns:
            uint8 (B, H, W, C) images and int32 (B,) labels.
        """
        rows = indices if self.rows is None else self.rows[indices]
        return np.asarray(self.source[rows]), np.asarray(self.labels[indices])


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Splits of an image-classification data set.

    Attributes:
        name: as given to `load`.
        train: the training split as used.
        validation: held out of the training split, None where nothing is.
        test: the official test split (the official validation split where there is no other).
        num_classes: m.
        class_names: m names.
        mean: float32 (C,), of the training split as used, in the scale of images / 255.
        std: float32 (C,), likewise.
        fingerprint: SHA-256 of the whole data set's arrays and class names, of what is held out
            and left out as well; the same for the same content from anywhere.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    num_classes: int
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    fingerprint: str


def load(
    name: str,
    *,
    data_dir: str = "",
    manual_dir: str = "",
    test: float = 0.0,
    validation: float = 0.0,
    train_examples: int = 0,
    image_size: int = 0,
    seed: int = 0,
) -> Dataset:
    """Load a data set, preparing and caching it on first use.

    Args:
        name: `cifar10`, `cifar100` or `stl10`; `digits` (bundled with scikit-learn); the path of an
            .npz file with x_train, y_train, x_test, y_test; `folder:PATH`, `csv:FILE` or
            `hf:NAME_OR_FOLDER` (Hugging Face); or an image-classification data set of TFDS such as
            `imagenet_resized/32x32`.
        data_dir: folder of prepared and cached data; empty: ~/.cache/collab_jax.
        manual_dir: folder of archives fetched by hand; empty: downloads/manual in `data_dir`.
        test: the fraction of the images to test with, with the classes' proportions and the same
            for every seed, where the data have no test split; else 0.
        validation: what to hold out of the training split, with the classes' proportions: a
            fraction below 1 or a number of images; 0: nothing.
        train_examples: size of a class-balanced random subset of what remains; 0: all.
        image_size: side to resize the images to; 0: their own. Images in files of their own may
            have any size, others are square and at least as large.
        seed: decides what is held out and which subset is used.

    Returns:
        The data set; cached images are memory-mapped.

    Raises:
        UserError: the data set is unknown, not there, damaged or does not fit the arguments.
        RunError: the disk is full.
    """
    arrays = _arrays(name, data_dir, manual_dir, image_size, test)
    labels = np.asarray(arrays.train_labels)
    rows = None
    held_out = None
    if validation:
        held = subsets.hold_out(labels, validation, seed=seed, name=name)
        held_out = Split(arrays.train_images, labels[held], held)
        rows = np.delete(np.arange(len(labels)), held)
    if train_examples:
        remaining = np.arange(len(labels)) if rows is None else rows
        chosen = subsets.balanced_subset(labels[remaining], train_examples, seed=seed, name=name)
        rows = remaining[chosen]
    mean, std = cached_mean_and_std(arrays.train_images, rows, arrays.directory)
    return Dataset(
        name=name,
        train=Split(arrays.train_images, labels if rows is None else labels[rows], rows),
        validation=held_out,
        test=Split(arrays.test_images, np.asarray(arrays.test_labels)),
        num_classes=len(arrays.class_names),
        class_names=arrays.class_names,
        mean=mean,
        std=std,
        fingerprint=arrays.fingerprint,
    )


def _arrays(name: str, data_dir: str, manual_dir: str, image_size: int, test: float) -> Arrays:
    if name.lower().endswith(".npz"):
        return npz_source.load(_path(name), image_size, test)
    if name == "digits" and not test:
        return digits.load(image_size)
    root = _path(data_dir or "~/.cache/collab_jax")
    if not data_dir and root == Path("~/.cache/collab_jax").absolute():
        raise UserError(
            "data.dir is empty and there is no home directory to keep data in (HOME is not set); "
            "expected a folder"
        )
    manual = _path(manual_dir) if manual_dir else root / "downloads" / "manual"
    kind, _, place = name.partition(":")
    if kind in ("folder", "csv", "hf"):
        if not place:
            raise UserError(f"data.name = {name!r}: expected {kind}: and then where the data are")
        if kind == "folder":
            listing = folder_source.listing(_path(place), name)
        elif kind == "csv":
            listing = csv_source.listing(_path(place), name)
        else:
            listing = hf_source.listing(place, name, root)
        return image_files.load(listing, root, image_size, test)
    if test:
        raise UserError(f"data.test = {test:g}: expected 0 for {name}, which has a test split")
    if name in ARCHIVES:
        return archives.load(name, root, manual, image_size)
    return tfds_source.load(name, root, manual, image_size)


def _path(text: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(text)))
