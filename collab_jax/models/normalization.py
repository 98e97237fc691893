"""Batch norm whose statistics are those of the batch, or of equal parts of it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["GroupedBatchNorm", "batch_norm"]

_MOMENTUM, _EPSILON = 0.9, 1e-5


def batch_norm(*, train: bool, groups: int, dtype: Any, name: str) -> nn.Module:
    """Batch norm with the parameters and running statistics of `flax.linen.BatchNorm`.

    Args:
      train: whether the batch's statistics are used, and update the running ones.
      groups: parts of the batch with statistics of their own in training.
      dtype: dtype of the result; statistics are taken in float32.
      name: of the submodule.

    Returns:
      A module that maps (B, H, W, C) to the same shape.
    """
    if train and groups > 1:
        return GroupedBatchNorm(groups, dtype=dtype, name=name)
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=_MOMENTUM,
        epsilon=_EPSILON,
        dtype=dtype,
        name=name,
    )


class GroupedBatchNorm(nn.Module):
    """Batch norm in training over each of several equal parts of the batch.

    With as many parts as there are devices it is what data-parallel training without synchronised
    batch norm computes. The running statistics are the means of the parts'.

    Attributes:
      groups: number of parts, consecutive examples each.
      dtype: dtype of the result.

    References:
      E. Hoffer, I. Hubara and D. Soudry, "Train longer, generalize better", 2017 (ghost batch
      normalization).
    """

    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Raises a ValueError if the batch has no equal parts."""
        batch, *_, channels = x.shape
        if batch % self.groups:
            raise ValueError(
                f"groups: {self.groups} given for a batch of {batch}; expected a factor"
            )
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        parts = x.reshape(self.groups, batch // self.groups, *x.shape[1:])
        parts = parts.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = parts.mean(axis=(1, 2, 3), keepdims=True)
        # The faster of the two forms, as in Flax.
        var = jnp.maximum(jnp.square(parts).mean((1, 2, 3), keepdims=True) - jnp.square(mean), 0)
        if not self.is_initializing():
            for variable, value in ((running_mean, mean), (running_var, var)):
                new = value.mean(axis=0).reshape(channels)
                variable.value = _MOMENTUM * variable.value + (1 - _MOMENTUM) * new
        factor = jax.lax.rsqrt(var + _EPSILON) * scale.reshape(1, 1, 1, 1, channels)
        parts = (parts - mean) * factor + bias.reshape(1, 1, 1, 1, channels)
        return parts.reshape(x.shape).astype(self.dtype)
