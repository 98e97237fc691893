"""Dropout of whole parts of a map: its channels, or square blocks of its pixels."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

__all__ = ["drop_block", "spatial_dropout"]


def spatial_dropout(
    key: PRNGKeyArray, x: Float[Array, "batch height width channels"], rate: float
) -> Float[Array, "batch height width channels"]:
    """Drops whole channels of each example; the others are divided by the part that is kept.

    Args:
      key: a PRNG key.
      x: (B, H, W, C).
      rate: the probability with which a channel is dropped, below 1.

    Returns:
      (B, H, W, C).

    References:
      J. Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015.
    """
    keep = jax.random.uniform(key, (len(x), 1, 1, x.shape[-1])) >= rate
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def drop_block(
    key: PRNGKeyArray, x: Float[Array, "batch height width channels"], rate: float, size: int
) -> Float[Array, "batch height width channels"]:
    """Drops square blocks of each channel; what is left is scaled by the part that is dropped.

    Blocks lie within the map, each channel's by itself. A map smaller than the block is dropped
    channel by channel.

    Args:
      key: a PRNG key.
      x: (B, H, W, C).
      rate: the part of the pixels to drop, below 1; overlapping blocks drop less.
      size: side of a block, in pixels.

    Returns:
      (B, H, W, C).

    References:
      G. Ghiasi, T.-Y. Lin and Q. V. Le, "DropBlock: A Regularization Method for Convolutional
      Networks", 2018, Algorithm 1.
    """
    batch, height, width, channels = x.shape
    size = min(size, height, width)
    rows, columns = height - size + 1, width - size + 1
    begins = rate / size**2 * (height * width) / (rows * columns)
    corners = jax.random.uniform(key, (batch, rows, columns, channels)) < begins
    border = (size - 1, size - 1)
    corners = jnp.pad(corners.astype(jnp.float32), ((0, 0), border, border, (0, 0)))
    dropped = lax.reduce_window(corners, -jnp.inf, lax.max, (1, size, size, 1), (1,) * 4, "VALID")
    kept = jnp.maximum(1 - dropped.mean(), 1 / x.size)
    return jnp.where(dropped == 1, 0, x / kept).astype(x.dtype)
