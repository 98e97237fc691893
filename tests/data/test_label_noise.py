"""Label noise as a function of key, epoch and example alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax.data.label_noise import noisy_labels

LABELS = jnp.arange(20000, dtype=jnp.int32) % 10
INDICES = jnp.arange(20000)


def draw(epoch=0, seed=0, level=0.3, order=slice(None)):
    return noisy_labels(
        LABELS[order],
        INDICES[order],
        epoch,
        key=jax.random.key(seed),
        level=level,
        num_classes=10,
    )


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_level_and_uniformity(level):
    noisy = np.asarray(draw(level=level))
    wrong = noisy != np.asarray(LABELS)
    # A uniform label is the right one once in m: 0.9 of the replaced labels differ.
    expected = 0.9 * level
    assert abs(wrong.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / 20000)
    of_class_3 = noisy[(np.asarray(LABELS) == 3) & wrong]
    counts = np.bincount(of_class_3, minlength=10)
    assert counts[3] == 0
    chi2 = ((np.delete(counts, 3) - counts.sum() / 9) ** 2 / (counts.sum() / 9)).sum()
    assert chi2 < 26.1  # 99.9% of chi-squared with 8 degrees of freedom


def test_order_of_the_data_does_not_matter():
    order = np.random.default_rng(0).permutation(20000)[:500]
    np.testing.assert_array_equal(draw(order=order), np.asarray(draw())[order])


def test_every_epoch_and_seed_is_a_fresh_draw():
    first = np.asarray(draw())
    np.testing.assert_array_equal(first, draw())
    assert 0.2 < (first != draw(epoch=1)).mean() < 0.6
    assert 0.2 < (first != draw(seed=1)).mean() < 0.6


def test_level_0_and_dtype():
    np.testing.assert_array_equal(draw(level=0.0), LABELS)
    assert draw().dtype == LABELS.dtype
