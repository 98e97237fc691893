"""Held-out and reduced training sets, functions of the labels and the seed alone."""

from __future__ import annotations

import math

import numpy as np

from collab_jax.errors import UserError

__all__ = ["balanced_subset", "hold_out", "hold_out_test"]

# Spawn keys: they keep these draws apart from each other and from the order of the epochs.
_HOLD_OUT, _SUBSET, _TEST = 1, 2, 3


def hold_out(
    labels: np.ndarray, validation: float, *, seed: int, name: str = "the data"
) -> np.ndarray:
    """Rows of a validation split with the classes' own proportions.

    Args:
        labels: int (N,), the training labels.
        validation: a fraction below 1, or a number of images from 1 on.
        seed: the run's seed.
        name: the data set's name, for messages.

    Returns:
        int (V,): increasing rows of the validation split.

    Raises:
        UserError: not a fraction or count, no image left over, or a class left without images.
    """
    size = len(labels)
    whole = validation >= 1 and math.isfinite(validation) and validation == int(validation)
    if not whole and not 0 < validation < 1:
        raise UserError(
            f"data.validation = {validation}: expected a fraction below 1 or a number of images"
        )
    count = int(validation) if whole else max(1, round(validation * size))
    if count >= size:
        raise UserError(
            f"data.validation = {validation}: expected less than the {size} training images of "
            f"{name}"
        )
    quotas = _proportional(labels, count, f"data.validation = {validation}", name)
    return _draw(labels, quotas, _generator(seed, _HOLD_OUT))


def hold_out_test(labels: np.ndarray, test: float, *, name: str = "the data") -> np.ndarray:
    """Rows of a test split with the classes' own proportions, the same for every seed.

    Args:
        labels: int (N,), the labels of all images.
        test: a fraction below 1.
        name: the data set's name, for messages.

    Returns:
        int (T,): increasing rows of the test split.

    Raises:
        UserError: no image left over, or a class left without images.
    """
    count = max(1, round(test * len(labels)))
    if not 0 < test < 1 or count >= len(labels):
        raise UserError(f"data.test = {test:g}: expected less than all images of {name}")
    quotas = _proportional(labels, count, f"data.test = {test:g}", name)
    return _draw(labels, quotas, _generator(0, _TEST))


def _proportional(labels: np.ndarray, count: int, key: str, name: str) -> np.ndarray:
    """(m,): how many of `count` images each class gives, so that each keeps at least one."""
    size, counts = len(labels), np.bincount(labels)
    quotas, remainders = np.divmod(counts * count, size)
    largest = np.argsort(-remainders, kind="stable")[: count - int(quotas.sum())]
    quotas[largest] += 1
    emptied = np.flatnonzero((quotas == counts) & (counts > 0))
    if emptied.size:
        raise UserError(
            f"{key}: leaves class {emptied[0]} of {name} without training images (it has "
            f"{counts[emptied[0]]}), expected a smaller split"
        )
    return quotas


def balanced_subset(
    labels: np.ndarray, count: int, *, seed: int, name: str = "the data"
) -> np.ndarray:
    """Rows of a random subset with equally many images a class, or as many as the class has.

    Args:
        labels: int (N,), the labels to choose from.
        count: size of the subset; what the classes cannot share equally goes to random ones.
        seed: the run's seed.
        name: the data set's name, for messages.

    Returns:
        int (count,): increasing rows of the subset.

    Raises:
        UserError: more images than there are, or fewer than one a class.
    """
    counts = np.bincount(labels)
    classes = int(np.count_nonzero(counts))
    if not classes <= count <= len(labels):
        raise UserError(
            f"data.train_examples = {count}: expected 0 (all) or from {classes}, one image a "
            f"class, to {len(labels)}, the training images of {name}"
        )
    generator = _generator(seed, _SUBSET)
    quotas = np.zeros_like(counts)
    left = count
    while left:
        unfilled = np.flatnonzero(quotas < counts)
        share = left // len(unfilled)
        if share == 0:
            quotas[generator.permutation(unfilled)[:left]] += 1
            break
        quotas[unfilled] += np.minimum(share, counts[unfilled] - quotas[unfilled])
        left = count - int(quotas.sum())
    return _draw(labels, quotas, generator)


def _generator(seed: int, purpose: int) -> np.random.Generator:
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose,))
    return np.random.Generator(np.random.PCG64(sequence))


def _draw(labels: np.ndarray, quotas: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Increasing rows: of each class c, quotas[c] random ones."""
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    chosen = [
        generator.permutation(rows)[:quota] for rows, quota in zip(by_class, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))
