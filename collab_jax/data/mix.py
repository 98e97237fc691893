"""Images of a batch mixed in pairs, and their labels with them, to be called inside jit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

__all__ = ["mix"]


def mix(
    key: PRNGKeyArray,
    images: Float[Array, "batch height width channels"],
    labels: Float[Array, "batch classes"],
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
    r"""Mixup or CutMix of each image with the next one of the batch, the last with the first.

    $$\tilde x = M \odot x + (1 - M) \odot x', \qquad
    \tilde y = \lambda y + (1 - \lambda) y', \qquad \lambda = mean(M)$$

    In mixup all of M is one number, drawn from Beta(a, a). In CutMix M is 1 outside of a box and 0
    inside; the box has the sides $H \sqrt{1 - r}$ and $W \sqrt{1 - r}$, rounded down, with r from
    Beta(a, a), around a uniform pixel, and is cut off at the image's edge. A batch has one M, as in
    both papers' programs. An epoch's order is random, so that the next image is a random one.

    Args:
      key: the batch's key.
      images: float (B, H, W, C), normalised.
      labels: probabilities (B, m).
      mixup: a of mixup; 0 for none.
      cutmix: a of CutMix; 0 for none. With both, a batch gets either with probability 1/2.

    Returns:
      The images and the labels, of the same shapes.

    References:
      H. Zhang, M. Cisse, Y. N. Dauphin and D. Lopez-Paz, "mixup: Beyond Empirical Risk
      Minimization", 2018, Sec. 2.
      S. Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
      Features", 2019, Eq. 1 and 2.
    """
    if not mixup and not cutmix:
        return images, labels
    of_choice, of_mixup, of_cutmix = jax.random.split(key, 3)
    _, height, width, _ = images.shape
    kinds = []
    if mixup:
        alike = jax.random.beta(of_mixup, mixup, mixup, dtype=jnp.float32)
        kinds.append(jnp.broadcast_to(alike, (height, width)))
    if cutmix:
        kinds.append(_outside_of_box(of_cutmix, height, width, cutmix))
    # The last kind is the other one, or the only one itself.
    weights = jnp.where(jax.random.uniform(of_choice, (), jnp.float32) < 0.5, kinds[0], kinds[-1])
    share, weights = weights.mean(), weights[None, :, :, None].astype(images.dtype)
    mixed = weights * images + (1 - weights) * jnp.roll(images, -1, axis=0)
    return mixed, share * labels + (1 - share) * jnp.roll(labels, -1, axis=0)


def _outside_of_box(key: PRNGKeyArray, height: int, width: int, a: float) -> Array:
    """(H, W): 0 in a box around a uniform pixel, 1 elsewhere."""
    of_size, of_place = jax.random.split(key)
    side = jnp.sqrt(1 - jax.random.beta(of_size, a, a, dtype=jnp.float32))
    centre = jax.random.uniform(of_place, (2,), jnp.float32)

    def inside(length: int, centre: Array) -> Array:
        size = jnp.floor(length * side)
        first = jnp.floor(length * centre) - jnp.floor(size / 2)
        pixels = jnp.arange(length, dtype=jnp.float32)
        return (pixels >= first) & (pixels < first + size)

    rows, columns = inside(height, centre[0]), inside(width, centre[1])
    return 1 - (rows[:, None] & columns[None, :]).astype(jnp.float32)
