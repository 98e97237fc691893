"""Pooling: maxima that keep one byte a window for their gradient, and averages."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["average_pool", "covering_average_pool", "covering_max_pool", "max_pool"]


def max_pool(
    x: Float[Array, "batch height width channels"], window: tuple[int, int]
) -> Float[Array, "batch out_height out_width channels"]:
    """Maxima of windows side by side; pixels that fill no whole window are left out.

    The gradient goes to a window's first maximum in reading order, on every platform.

    Args:
      x: (B, H, W, C).
      window: (vertical, horizontal) size in pixels.

    Returns:
      (B, H // vertical, W // horizontal, C).
    """
    # XLA's own gradient scatters, pixel by pixel, with four index arrays as large as the input.
    return _largest(_largest(x, 2, window[1]), 1, window[0])


def covering_max_pool(
    x: Float[Array, "batch height width channels"], window: tuple[int, int]
) -> Float[Array, "batch out_height out_width channels"]:
    """As `max_pool`, but the last windows may be smaller, so that they cover every pixel."""
    return max_pool(_filled(x, window, jnp.finfo(x.dtype).min), window)


def covering_average_pool(
    x: Float[Array, "batch height width channels"], window: tuple[int, int]
) -> Float[Array, "batch out_height out_width channels"]:
    """As `average_pool`, but the last windows may be smaller, so that they cover every pixel."""
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    means, parts = (average_pool(_filled(y, window, 0), window) for y in (x, ones))
    return means / parts


def _filled(x: Array, window: tuple[int, int], value: Any) -> Array:
    """Pixels of one value below and on the right, up to a multiple of the window."""
    rows, columns = (-size % part for size, part in zip(x.shape[1:3], window, strict=True))
    padding = ((0, 0), (0, rows), (0, columns), (0, 0))
    return jnp.pad(x, padding, constant_values=value) if rows or columns else x


def average_pool(
    x: Float[Array, "batch height width channels"], window: tuple[int, int]
) -> Float[Array, "batch out_height out_width channels"]:
    """Averages of windows side by side; arguments, edges and result as those of `max_pool`."""
    batch, height, width, channels = x.shape
    rows, columns = height // window[0], width // window[1]
    x = x[:, : rows * window[0], : columns * window[1]]
    return x.reshape(batch, rows, window[0], columns, window[1], channels).mean(axis=(2, 4))


def _largest(x: Array, axis: int, window: int) -> Array:
    """The maxima of every `window` neighbours along an axis."""
    count = x.shape[axis] // window
    x = lax.slice_in_dim(x, 0, count * window, axis=axis)
    return _largest_in_group(x.reshape(*x.shape[:axis], count, window, *x.shape[axis + 1 :]), axis)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _largest_in_group(groups: Array, axis: int) -> Array:
    return _largest_and_index(groups, axis)[0]


@_largest_in_group.defjvp
def _largest_in_group_jvp(
    axis: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    largest, index = _largest_and_index(primals[0], axis)
    position = lax.broadcasted_iota(index.dtype, primals[0].shape, axis + 1)
    chosen = jnp.expand_dims(index, axis + 1) == position
    return largest, jnp.where(chosen, tangents[0], 0).sum(axis + 1)


def _largest_and_index(groups: Array, axis: int) -> tuple[Array, Array]:
    members = [
        lax.index_in_dim(groups, i, axis + 1, keepdims=False) for i in range(groups.shape[axis + 1])
    ]
    largest = members[0]
    index = jnp.zeros(largest.shape, jnp.int32 if len(members) > 127 else jnp.int8)
    for i, member in enumerate(members[1:], start=1):
        keep = (largest >= member) | jnp.isnan(largest)
        largest, index = jnp.where(keep, largest, member), jnp.where(keep, index, i)
    return largest, index
