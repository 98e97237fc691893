"""Residual networks for small images: a 3x3 stem and no max pooling."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from collab_jax.models.blocks import ConvLayer, scaled_filters
from collab_jax.models.network import Network

__all__ = ["resnet101", "resnet18", "resnet32"]


class ResidualBlock(nn.Module):
    """Layers on the main path, the last one's activation taken after the skip is added.

    The skip, with its shortcut convolution where the shape changes, is an input of the last
    layer, so that the local gradient of that layer stops there.

    Attributes:
      layers: (filters, kernel size, stride) of each layer on the main path.
      dtype: dtype of the computation.
      norm_groups: as in `ConvLayer`.
    """

    layers: tuple[tuple[int, int, int], ...]
    dtype: Any = jnp.float32
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch out_height out_width filters"]:
        filters, stride = self.layers[-1][0], max(layer[2] for layer in self.layers)
        same = {"dtype": self.dtype, "norm_groups": self.norm_groups}
        skip = x
        if x.shape[-1] != filters or stride > 1:
            shortcut = ConvLayer(filters, 1, stride, activate=False, **same, name="shortcut")
            skip = shortcut(x, train=train)
        for number, settings in enumerate(self.layers, start=1):
            layer = ConvLayer(*settings, **same, name=f"layer{number}")
            inputs = (x, skip) if number == len(self.layers) else (x,)
            x = layer(*inputs, train=train)
        return x


class ResNetStage(nn.Module):
    """Residual blocks at one resolution.

    Attributes:
      blocks: the layers of each block.
      dtype: dtype of the computation.
      norm_groups: as in `ConvLayer`.
    """

    blocks: tuple[tuple[tuple[int, int, int], ...], ...]
    dtype: Any = jnp.float32
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch out_height out_width filters"]:
        for number, layers in enumerate(self.blocks, start=1):
            block = ResidualBlock(layers, self.dtype, self.norm_groups, name=f"block{number}")
            x = block(x, train=train)
        return x


def basic_layers(filters: int, stride: int) -> tuple[tuple[int, int, int], ...]:
    """Two 3x3 layers."""
    return (filters, 3, stride), (filters, 3, 1)


def bottleneck_layers(filters: int, stride: int) -> tuple[tuple[int, int, int], ...]:
    """1x1, 3x3 and 1x1 layers, the last four times as wide."""
    return (filters, 1, 1), (filters, 3, stride), (4 * filters, 1, 1)


def _resnet(
    num_classes: int,
    block_layers: Any,
    stem: int,
    stages: tuple[tuple[int, int], ...],
    width: float,
    options: dict[str, Any],
) -> Network:
    factories = []
    for index, (base_filters, count) in enumerate(stages):
        filters = scaled_filters(base_filters, width)
        strides = [1 if index == 0 else 2] + [1] * (count - 1)
        blocks = tuple(block_layers(filters, stride) for stride in strides)
        factories.append(partial(ResNetStage, blocks))
    return Network(num_classes, tuple(factories), scaled_filters(stem, width), **options)


def resnet18(num_classes: int, *, width: float = 1.0, **options: Any) -> Network:
    """ResNet-18 with a 3x3 stem: 17 layers in a stem and four stages.

    Args:
      num_classes: m.
      width: multiplies the number of filters.
      **options: see `Network`.

    Returns:
      The Linen module.

    References:
      K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", 2016.
    """
    stages = ((64, 2), (128, 2), (256, 2), (512, 2))
    return _resnet(num_classes, basic_layers, 64, stages, width, options)


def resnet32(num_classes: int, *, width: float = 1.0, **options: Any) -> Network:
    """ResNet-32 for CIFAR: 31 layers in a stem and three stages of five blocks.

    Shortcuts that change the shape are 1x1 convolutions. Arguments as `resnet18`.
    """
    return _resnet(num_classes, basic_layers, 16, ((16, 5), (32, 5), (64, 5)), width, options)


def resnet101(num_classes: int, *, width: float = 1.0, **options: Any) -> Network:
    """ResNet-101 with a 3x3 stem: 100 layers in a stem and four stages of bottlenecks.

    The stride of a stage is that of its first 3x3 layer. Arguments as `resnet18`.
    """
    stages = ((64, 3), (128, 4), (256, 23), (512, 3))
    return _resnet(num_classes, bottleneck_layers, 64, stages, width, options)
