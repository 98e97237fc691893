"""Dropped channels and blocks: which pixels go, how many, and what is left of the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax.models import drop_block, spatial_dropout


def test_spatial_dropout_drops_whole_channels_of_each_example():
    x = jnp.array(np.random.default_rng(0).uniform(1, 2, size=(64, 3, 4, 32)), jnp.float32)
    found = np.asarray(spatial_dropout(jax.random.key(0), x, 0.25))
    kept = found != 0
    np.testing.assert_array_equal(kept, np.broadcast_to(kept[:, :1, :1], kept.shape))
    np.testing.assert_allclose(found[kept], np.asarray(x)[kept] / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 0.03 and len(np.unique(kept[:, 0, 0], axis=0)) > 32


def blocks(corners, height, width, size):
    """The pixels of all squares that begin at `corners`, one by one."""
    dropped = np.zeros((len(corners), height, width, corners.shape[-1]), bool)
    for n, i, j, c in np.argwhere(corners):
        dropped[n, i : i + size, j : j + size, c] = True
    return dropped


@pytest.mark.parametrize(("shape", "size"), [((9, 11), 3), ((8, 8), 4), ((6, 6), 1), ((4, 4), 7)])
def test_drop_block_drops_squares_within_each_channel(shape, size):
    height, width = shape
    x = jnp.array(np.random.default_rng(0).uniform(1, 2, size=(5, *shape, 6)), jnp.float32)
    key, rate = jax.random.key(1), 0.2
    found = np.asarray(drop_block(key, x, rate, size))
    side = min(size, height, width)
    rows, columns = height - side + 1, width - side + 1
    begins = rate * height * width / (side**2 * rows * columns)
    drawn = np.asarray(jax.random.uniform(key, (5, rows, columns, 6)))
    dropped = blocks(drawn < begins, height, width, side)
    assert 0 < dropped.mean() < 1
    np.testing.assert_array_equal(found == 0, dropped)
    expected = np.asarray(x) * dropped.size / (dropped.size - dropped.sum())
    np.testing.assert_allclose(found[~dropped], expected[~dropped], rtol=1e-5)


def test_drop_block_drops_about_its_rate():
    x = jnp.ones((64, 16, 16, 8))
    dropped = np.asarray(drop_block(jax.random.key(0), x, 0.1, 5) == 0).mean()
    assert 0.08 < dropped < 0.1


def test_nothing_drops_at_rate_zero_and_all_of_a_map_stays_finite():
    x = jnp.array(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)
    np.testing.assert_array_equal(spatial_dropout(jax.random.key(0), x, 0.0), x)
    np.testing.assert_allclose(drop_block(jax.random.key(0), x, 0.0, 2), x, rtol=1e-6)
    assert jnp.isfinite(drop_block(jax.random.key(0), x, 0.999, 4)).all()
    half = x.astype(jnp.bfloat16)
    assert drop_block(jax.random.key(0), half, 0.1, 2).dtype == jnp.bfloat16
    assert spatial_dropout(jax.random.key(0), half, 0.1).dtype == jnp.bfloat16
