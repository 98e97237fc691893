"""The layer that the paper's objectives speak of: convolution, batch norm, activation."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from collab_jax.models.convolution import conv_general_dilated
from collab_jax.models.initial import he_normal
from collab_jax.models.normalization import batch_norm

__all__ = ["CONVOLVED", "ConvLayer", "scaled_filters"]

CONVOLVED = "convolved"
"""Name of the convolutions' outputs, which rematerialisation keeps; the rest is computed anew."""


class ConvLayer(nn.Module):
    """Convolution without bias, batch norm, and (unless `activate` is False) a ReLU.

    Attributes:
      filters: output channels.
      kernel_size: side of the square kernel, in pixels.
      stride: step of the convolution, in pixels.
      activate: whether a ReLU follows.
      dtype: dtype of the computation; parameters and statistics stay float32.
      norm_groups: parts of a training batch that are normalised each by itself.
    """

    filters: int
    kernel_size: int = 3
    stride: int = 1
    activate: bool = True
    dtype: Any = jnp.float32
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        skip: Float[Array, "batch out_height out_width filters"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "batch out_height out_width filters"]:
        x = nn.Conv(
            self.filters,
            (self.kernel_size, self.kernel_size),
            strides=self.stride,
            padding=self.kernel_size // 2,
            use_bias=False,
            kernel_init=he_normal,
            dtype=self.dtype,
            conv_general_dilated=conv_general_dilated,
            name="conv",
        )(x)
        x = checkpoint_name(x, CONVOLVED)
        norm: Any = batch_norm(train=train, groups=self.norm_groups, dtype=self.dtype, name="norm")
        x = norm(x)
        if skip is not None:
            x = x + skip
        return nn.relu(x) if self.activate else x


def scaled_filters(filters: int, width: float) -> int:
    """Multiplies a number of filters by a model's width, and keeps at least one."""
    return max(1, round(filters * width))
