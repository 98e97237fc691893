"""Augmentation and normalisation against NumPy, one image at a time."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax import data
from collab_jax.data import statistics

REPOSITORY = Path(__file__).resolve().parents[2]
augment = jax.jit(data.augment, static_argnames=("crop", "flip"))


def random_images(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def crops(image, pad_rows, pad_columns):
    """(row, column, flipped, image) of everything that an image can become."""
    height, width, _ = image.shape
    padded = np.zeros((height + 2 * pad_rows, width + 2 * pad_columns, image.shape[2]), np.uint8)
    padded[pad_rows : pad_rows + height, pad_columns : pad_columns + width] = image
    for row in range(2 * pad_rows + 1):
        for column in range(2 * pad_columns + 1):
            cut = padded[row : row + height, column : column + width]
            yield row, column, False, cut
            yield row, column, True, cut[:, ::-1]


@pytest.mark.parametrize(
    ("shape", "crop", "flip"),
    [
        ((32, 32, 3), True, True),
        ((28, 28, 1), True, False),
        ((8, 8, 1), False, True),
        ((24, 16, 2), True, True),
    ],
)
def test_each_image_is_a_crop_of_its_padded_self(shape, crop, flip):
    images = random_images(64, shape)
    result = np.asarray(augment(jax.random.key(0), images, crop=crop, flip=flip))
    assert result.dtype == np.uint8
    pads = (shape[0] // 8, shape[1] // 8) if crop else (0, 0)
    choices = []
    for before, after in zip(images, result, strict=True):
        found = [
            (row, column, flipped)
            for row, column, flipped, candidate in crops(before, *pads)
            if np.array_equal(candidate, after)
        ]
        assert len(found) == 1
        choices += found
    rows, columns, flipped = (set(values) for values in zip(*choices, strict=True))
    assert flipped == ({False, True} if flip else {False})
    # 64 draws miss a given one of 9 places in one of 2,000 cases.
    assert len(rows) >= 2 * pads[0] and len(columns) >= 2 * pads[1]


def test_places_and_flips_are_uniform_and_independent():
    image = np.zeros((8, 8, 1), np.uint8)
    image[3, 2] = 255
    images = np.repeat(image[None], 9000, axis=0)
    result = np.asarray(augment(jax.random.key(1), jnp.asarray(images)))
    positions = np.argmax(result.reshape(9000, 64), axis=1)
    # Rows 2..4; columns 1..3, or mirrored 4..6: 18 outcomes of 500, five standard deviations.
    expected = {row * 8 + column for row in (2, 3, 4) for column in (1, 2, 3, 4, 5, 6)}
    values, counts = np.unique(positions, return_counts=True)
    assert set(values) == expected
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)


def test_an_image_draws_from_its_own_key():
    images = jnp.asarray(random_images(16, (32, 32, 3)))
    key = jax.random.key(2)
    whole = augment(key, images)
    assert jnp.array_equal(whole, augment(key, images))
    assert not jnp.array_equal(whole, augment(jax.random.key(3), images))
    # Equal images at other places of the batch become different ones.
    equal = jnp.repeat(images[:1], 16, axis=0)
    assert len({bytes(np.asarray(image)) for image in augment(key, equal)}) > 8


SHARDED = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from collab_jax import data
assert len(jax.devices()) == 4
mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("batch",), ()))
images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
def batch(key, images):
    normal = data.normalise(data.augment(key, images), np.ones(3, "f"), np.ones(3, "f"))
    return data.cutout(key, normal, 4)
sharded = jax.jit(batch, in_shardings=(whole, split), out_shardings=split)
key = jax.random.key(0)
found = sharded(key, jax.device_put(images, split))
assert found.sharding == split
np.testing.assert_array_equal(found, jax.jit(batch)(key, images))
program = sharded.lower(key, images).compile().as_text()
print([word for word in ("all-gather", "all-reduce", "all-to-all", "permute") if word in program])
"""


def test_a_sharded_batch_gives_the_same_images_without_communication():
    flags = "--xla_force_host_platform_device_count=4"
    result = subprocess.run(
        [sys.executable, "-c", SHARDED],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"


def test_normalised_images():
    images = random_images(5, (6, 4, 3))
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.25, 0.3])
    result = jax.jit(data.normalise)(images, mean, std)
    assert result.dtype == jnp.float32
    expected = (images.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_training_images_have_zero_mean_and_unit_deviation():
    train = data.load("digits").train
    dataset = data.load("digits")
    result = np.asarray(data.normalise(jnp.asarray(train.images), dataset.mean, dataset.std))
    assert abs(result.mean(dtype=np.float64)) < 1e-5
    assert abs(result.std(dtype=np.float64) - 1) < 1e-5


@pytest.mark.parametrize("size", [4, 5, 16])
def test_cutout_clears_a_square_around_a_pixel(size):
    images = np.random.default_rng(0).uniform(1, 2, (200, 12, 9, 2)).astype(np.float32)
    cutout = jax.jit(data.cutout, static_argnames="size")
    result = np.asarray(cutout(jax.random.key(0), images, size=size))
    centres = set()
    for before, after in zip(images, result, strict=True):
        cleared = after == 0
        assert np.array_equal(after[~cleared], before[~cleared])
        assert np.array_equal(cleared[..., 0], cleared[..., 1])
        fitting = [
            (row, column)
            for row in range(12)
            for column in range(9)
            if np.array_equal(cleared[..., 0], square(row, column, size))
        ]
        assert fitting
        centres.add(fitting[0])
    assert len(centres) > 20 or size == 16


def square(row, column, size):
    inside = np.zeros((12, 9), bool)
    top, left = row - size // 2, column - size // 2
    inside[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = True
    return inside


def test_nothing_to_do_changes_nothing():
    images = jnp.asarray(random_images(4, (8, 8, 1)))
    key = jax.random.key(0)
    assert jnp.array_equal(augment(key, images, crop=False, flip=False), images)
    normal = data.normalise(images, jnp.zeros(1), jnp.ones(1))
    assert jnp.array_equal(data.cutout(key, normal, 0), normal)


@pytest.mark.parametrize("rows", [None, np.array([0, 3, 999, 500])])
def test_statistics_against_float64(rows, monkeypatch):
    images = random_images(1000, (16, 12, 3))
    images[..., 1] //= 3
    used = images if rows is None else images[rows]
    pixels = used.astype(np.float64) / 255
    mean, std = statistics.mean_and_std(images, rows)
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)), rtol=1e-6)


def test_sums_of_many_bright_images_do_not_overflow():
    images = np.full((70_000, 1, 1, 2), 255, np.uint8)
    images[:, :, :, 1] = np.arange(70_000).reshape(-1, 1, 1) % 2 * 255
    mean, std = statistics.mean_and_std(images)
    assert mean.tolist() == [1.0, 0.5]
    # A channel of one value is normalised to zero, not to a division by zero.
    assert std.tolist() == [1.0, 0.5]
    result = data.normalise(jnp.asarray(images[:2]), mean, std)
    assert np.asarray(result).ravel().tolist() == [0.0, -1.0, 0.0, 1.0]
