"""Mixup and CutMix against their formulas in float64, from what went in and what came out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from collab_jax import data

SHAPE = (24, 16, 3)


def batch(count=4, shape=SHAPE, classes=5):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, *shape)).astype(np.float32)
    labels = np.eye(classes, dtype=np.float32)[np.arange(count) % classes]
    return jnp.asarray(images), jnp.asarray(labels)


def mixed(draws, images, labels, **amounts):
    keys = jax.random.split(jax.random.key(3), draws)

    def one(key):
        return data.mix(key, images, labels, **amounts)

    return [np.asarray(x, np.float64) for x in jax.jit(jax.vmap(one))(keys)]


def weights_of(images, found):
    """(draws, B, H, W): what each image counts, by its pixels and those of the next one."""
    own = np.asarray(images, np.float64)
    other = np.concatenate([own[1:], own[:1]])
    weights = (found - other) / (own - other)
    # All channels agree.
    near = np.abs(own - other) > 0.1
    spread = np.where(near, weights, np.nan)
    assert np.nanmax(np.nanmax(spread, -1) - np.nanmin(spread, -1)) < 1e-4
    return np.nanmean(spread, axis=-1)


def assert_labels(labels, found, share):
    own = np.asarray(labels, np.float64)
    other = np.concatenate([own[1:], own[:1]])
    share = share[:, None, None]
    np.testing.assert_allclose(found, share * own + (1 - share) * other, atol=1e-5)


@pytest.mark.parametrize("a", [0.2, 1.0, 4.0])
def test_mixup_weights_images_and_labels_by_one_number_of_beta(a):
    images, labels = batch(shape=(2, 2, 3))
    found, mixed_labels = mixed(2000, images, labels, mixup=a)
    weights = weights_of(images, found)
    share = np.nanmean(weights, axis=(1, 2, 3))
    np.testing.assert_allclose(np.nanmax(weights, (1, 2, 3)), share, atol=1e-4)
    assert_labels(labels, mixed_labels, share)
    assert stats.kstest(np.clip(share, 0, 1), stats.beta(a, a).cdf).pvalue > 1e-3


def boxes(images, found):
    """(draws, 4): rows and columns where the box of each draw begins and ends."""
    inside = np.nanmax(np.abs(weights_of(images, found)), axis=1) < 1e-3
    edges = []
    for box in inside:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        if not rows.size:
            edges.append((0, 0, 0, 0))
            continue
        edge = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
        assert box.sum() == (edge[1] - edge[0]) * (edge[3] - edge[2])  # a box, and full
        edges.append(edge)
    return np.array(edges)


def expected_share(height, width, a):
    """The mean of what a box leaves, over sizes and places, by Eq. 2 and the box's clipping."""
    total, parts = 0.0, 2000
    for level in (np.arange(parts) + 0.5) / parts:
        side = np.sqrt(1 - stats.beta(a, a).ppf(level))

        def kept(length, side=side):
            size = int(length * side)
            first = np.arange(length) - size // 2
            return (np.minimum(first + size, length) - np.maximum(first, 0)).mean()

        total += 1 - kept(height) * kept(width) / (height * width)
    return total / parts


@pytest.mark.parametrize("a", [0.5, 1.0])
def test_cutmix_puts_a_box_of_the_next_image_in_and_counts_its_pixels(a):
    images, labels = batch()
    found, mixed_labels = mixed(2000, images, labels, cutmix=a)
    edges = boxes(images, found)
    height, width = edges[:, 1] - edges[:, 0], edges[:, 3] - edges[:, 2]
    share = 1 - height * width / (SHAPE[0] * SHAPE[1])
    assert_labels(labels, mixed_labels, share)
    # Sides in the image's proportion, but where the edge cuts the box.
    within = (edges[:, 0] > 0) & (edges[:, 1] < 24) & (edges[:, 2] > 0) & (edges[:, 3] < 16)
    assert within.sum() > 200
    assert (np.abs(height[within] / 24 - width[within] / 16) <= 1 / 16).all()
    deviation = share.std() / np.sqrt(len(share))
    assert abs(share.mean() - expected_share(24, 16, a)) < 4 * deviation
    for first, length in ((edges[within, 0], 24), (edges[within, 2], 16)):
        assert len(set(first)) > length // 2


def test_with_both_a_batch_gets_either():
    images, labels = batch()
    found, _ = mixed(400, images, labels, mixup=1.0, cutmix=1.0)
    weights = weights_of(images, found)
    boxed = ((np.abs(weights) < 1e-3) | (np.abs(weights - 1) < 1e-3)).all(axis=(1, 2, 3))
    alike = np.ptp(weights, axis=(1, 2, 3)) < 1e-3
    assert (boxed | alike).all()
    assert abs(boxed.mean() - 0.5) < 0.12


def test_with_neither_nothing_changes():
    images, labels = batch()
    found, found_labels = data.mix(jax.random.key(0), images, labels)
    assert jnp.array_equal(found, images) and jnp.array_equal(found_labels, labels)
