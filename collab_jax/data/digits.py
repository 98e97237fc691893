"""The 8 x 8 handwritten digits bundled with scikit-learn, with a fixed split."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from collab_jax.data import subsets
from collab_jax.data.arrays import Arrays, area_downscale, target_shape
from collab_jax.errors import needs

__all__ = ["load"]

_TEST_IMAGES = 360
_FILE = "datasets/data/digits.csv.gz"


def load(image_size: int = 0) -> Arrays:
    """1,437 training and 360 test images of ten classes, grey values 0..16 scaled to 0..255.

    The split keeps the classes' proportions and is the same for every seed.

    Args:
        image_size: side to reduce the images to; 0: 8.

    Returns:
        The arrays: uint8 (N, 8, 8, 1) images and int32 (N,) labels.

    Raises:
        UserError: `image_size` above 8.
    """
    shape = target_shape((8, 8, 1), image_size, "digits")
    table = _table()
    images = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    images = area_downscale(images, *shape[:2])
    labels = table[:, -1].astype(np.int32)
    test = subsets.hold_out(labels, _TEST_IMAGES, seed=0, name="digits")
    train = np.delete(np.arange(len(labels)), test)
    return Arrays(
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple(str(digit) for digit in range(10)),
    )


def _table() -> np.ndarray:
    """Rows of 64 grey values and a label, from scikit-learn's own file.

    Importing scikit-learn takes longer than all else that a run on digits reads: it is done only
    where the file is not at its place.
    """
    spec = importlib.util.find_spec("sklearn")
    file = Path(spec.origin).parent / _FILE if spec and spec.origin else None
    if file and file.is_file():
        return np.loadtxt(file, delimiter=",")
    with needs("train"):
        from sklearn.datasets import load_digits
    pixels, target = load_digits(return_X_y=True)
    return np.column_stack([pixels, target])
