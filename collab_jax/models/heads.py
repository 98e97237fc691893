"""Training-time parts that look at captured features: local classifiers and projections."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from collab_jax.models.blocks import he_normal

__all__ = ["LocalHeads", "Projections"]


class LocalHeads(nn.Module):
    """One local classifier a layer: max pooling, a 3x3 convolution, a fully connected layer.

    Attributes:
      num_classes: m.
      width: filters of the convolution, whatever the width of the layer.
      pool: maps are max-pooled to at most this many pixels a side.
      dtype: dtype of the computation; logits are returned in float32.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. III-B.
    """

    num_classes: int
    width: int = 64
    pool: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: Sequence[Float[Array, "batch height width channels"]]
    ) -> Float[Array, "layers batch classes"]:
        """Maps N feature maps of any shapes to logits (N, B, m)."""
        return jnp.stack([self._head(i, x) for i, x in enumerate(features, start=1)])

    def _head(self, number: int, x: Array) -> Array:
        window = tuple(-(-side // self.pool) for side in x.shape[1:3])
        if max(window) > 1:
            x = nn.max_pool(x, window, strides=window)
        x = nn.Conv(
            self.width,
            (3, 3),
            kernel_init=he_normal,
            dtype=self.dtype,
            name=f"layer{number}_conv",
        )(x)
        x = x.reshape(x.shape[0], -1)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name=f"layer{number}_fc")(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class Projections(nn.Module):
    """g_i of Eq. 9: one convolution a layer.

    Attributes:
      width: filters of each convolution.
      kernel_size: side of its square kernel, in pixels.
      dtype: dtype of the computation.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 9.
    """

    width: int = 32
    kernel_size: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: Sequence[Float[Array, "batch height width channels"]]
    ) -> tuple[Float[Array, "batch height width projected"], ...]:
        """Projects N feature maps of any shapes."""
        return tuple(
            nn.Conv(
                self.width,
                (self.kernel_size, self.kernel_size),
                kernel_init=he_normal,
                dtype=self.dtype,
                name=f"layer{number}",
            )(x)
            for number, x in enumerate(features, start=1)
        )
