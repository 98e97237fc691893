"""Initial values of the layers' weights."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

__all__ = ["he_normal", "of_inputs"]

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def of_inputs(count: int) -> nn.initializers.Initializer:
    """Uniform within 1 / sqrt(inputs), as PyTorch draws a layer's weights and biases.

    For layers that no batch norm follows, whose scale reaches the logits. Flax's default is
    sqrt(3) times as wide: too much for three layers 4096 wide at the paper's learning rates.

    Args:
      count: inputs of one output unit: the features of a fully connected layer, or a convolution's
        kernel height x kernel width x channels.

    Returns:
      An initialiser for the layer's kernel, and one for its bias: the same.

    References:
      `reset_parameters` of `torch.nn.Linear` and `torch.nn.Conv2d`.
    """
    bound = count**-0.5

    def init(
        key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None
    ) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound, out_sharding=out_sharding)

    return init
