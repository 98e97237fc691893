"""The order of the training examples, a function of seed and epoch alone."""

from __future__ import annotations

import numpy as np

__all__ = ["epoch_order"]


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the training examples.

    Nothing is carried over from earlier epochs, so that a resumed run goes on exactly.

    Args:
        num_examples: N, the number of training examples.
        seed: the run's seed, at least 0.
        epoch: number of the epoch, at least 0.

    Returns:
        int32 (N,): a permutation of 0..N-1.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    return generator.permutation(np.arange(num_examples, dtype=np.int32))
