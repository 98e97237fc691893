"""VGG-16 with batch norm."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from collab_jax.models.blocks import ConvLayer, scaled_filters
from collab_jax.models.network import Network
from collab_jax.models.pooling import max_pool

__all__ = ["vgg16"]


class VGGStage(nn.Module):
    """A group of 3x3 layers and a 2x2 max pooling, which is skipped where it leaves too little.

    Attributes:
      filters: output channels of each layer.
      least: pixels a side that the pooling must leave: 2 where a layer follows, so that no 3x3
        kernel works on a single pixel.
      dtype: dtype of the computation.
      norm_groups: as in `ConvLayer`.
    """

    filters: tuple[int, ...]
    least: int = 2
    dtype: Any = jnp.float32
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch out_height out_width filters"]:
        for number, filters in enumerate(self.filters, start=1):
            layer = ConvLayer(
                filters, dtype=self.dtype, norm_groups=self.norm_groups, name=f"layer{number}"
            )
            x = layer(x, train=train)
        if min(x.shape[1:3]) // 2 >= self.least:
            x = max_pool(x, (2, 2))
        return x


def vgg16(num_classes: int, *, width: float = 1.0, **options: Any) -> Network:
    """VGG-16 with batch norm: 13 layers in five stages.

    Args:
      num_classes: m.
      width: multiplies the number of filters.
      **options: see `Network`.

    Returns:
      The Linen module.

    References:
      K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
      Recognition", 2015.
    """
    groups = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
    stages = tuple(
        partial(
            VGGStage,
            tuple(scaled_filters(filters, width) for filters in group),
            least=2 if number < len(groups) else 1,
        )
        for number, group in enumerate(groups, start=1)
    )
    return Network(num_classes, stages, **options)
