"""Augmentation and normalisation of a batch, to be called inside jit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

__all__ = ["augment", "cutout", "normalise"]


def augment(
    key: PRNGKeyArray,
    images: UInt8[Array, "batch height width channels"],
    *,
    crop: bool = True,
    flip: bool = True,
) -> UInt8[Array, "batch height width channels"]:
    """Random crop after zero padding by an eighth of the size, and random horizontal flip.

    As in the usual CIFAR recipe the padding is black, that is zero before normalisation. Each image
    draws from a key of its own, so the result does not depend on how the batch is sharded.

    Args:
        key: the batch's key.
        images: uint8 (B, H, W, C).
        crop: whether to pad by H // 8 rows and W // 8 columns and cut out H x W again.
        flip: whether to mirror an image left to right with probability 1/2.

    Returns:
        uint8 (B, H, W, C).
    """
    if not crop and not flip:
        return images
    _, height, width, _ = images.shape
    pad_rows, pad_columns = (height // 8, width // 8) if crop else (0, 0)
    padding = ((0, 0), (pad_rows, pad_rows), (pad_columns, pad_columns), (0, 0))

    def one(key: PRNGKeyArray, image: UInt8[Array, "padded_height padded_width channels"]):
        # One draw for all three: each call of the generator costs compile time.
        draws = jax.random.uniform(key, (3,), jnp.float32)
        rows = jnp.arange(height) + _whole(draws[0], 2 * pad_rows + 1)
        columns = jnp.arange(width) + _whole(draws[1], 2 * pad_columns + 1)
        if flip:
            columns = jnp.where(draws[2] < 0.5, columns[::-1], columns)
        return image[rows[:, None], columns[None, :]]

    # One gather per image under vmap: a batched index array instead makes XLA gather the whole
    # batch on every device when the batch is sharded.
    return jax.vmap(one)(jax.random.split(key, images.shape[0]), jnp.pad(images, padding))


def normalise(
    images: UInt8[Array | np.ndarray, "batch height width channels"],
    mean: Float[Array | np.ndarray, " channels"],
    std: Float[Array | np.ndarray, " channels"],
) -> Float[Array, "batch height width channels"]:
    """Per-channel normalisation, (images / 255 - mean) / std.

    Args:
        images: uint8 (B, H, W, C).
        mean: float (C,), in the scale of images / 255.
        std: float (C,), in the same scale, above zero.

    Returns:
        float32 (B, H, W, C).
    """
    shape = (1, 1, 1, images.shape[-1])
    return (jnp.asarray(images, jnp.float32) / 255.0 - mean.reshape(shape)) / std.reshape(shape)


def cutout(
    key: PRNGKeyArray, images: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch height width channels"]:
    """Zeros in a square around a random pixel of each image (DeVries & Taylor, 2017).

    Meant for normalised images, where zero is the training split's mean. The square's centre is
    any pixel, so the square may lie partly outside of the image.

    Args:
        key: the batch's key.
        images: float (B, H, W, C), normalised.
        size: side of the square in pixels; 0 changes nothing.

    Returns:
        (B, H, W, C) in the images' dtype.
    """
    if size == 0:
        return images
    batch, height, width, _ = images.shape

    def one(key: PRNGKeyArray):
        draws = jax.random.uniform(key, (2,), jnp.float32)
        top = _whole(draws[0], height) - size // 2
        left = _whole(draws[1], width) - size // 2
        rows, columns = jnp.arange(height), jnp.arange(width)
        inside_rows = (rows >= top) & (rows < top + size)
        inside_columns = (columns >= left) & (columns < left + size)
        return inside_rows[:, None] & inside_columns[None, :]

    inside = jax.vmap(one)(jax.random.split(key, batch))
    return jnp.where(inside[..., None], jnp.zeros((), images.dtype), images)


def _whole(uniform: Float[Array, ""], count: int) -> Int[Array, ""]:
    """0..count-1 from a number in [0, 1); the product cannot round up to count."""
    return (uniform * count).astype(jnp.int32)
