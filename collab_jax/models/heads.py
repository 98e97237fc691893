"""Training-time parts that look at captured features: local classifiers and projections."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from collab_jax.models.convolution import conv_general_dilated
from collab_jax.models.initial import of_inputs
from collab_jax.models.pooling import covering_average_pool, covering_max_pool

__all__ = [
    "ByLayer",
    "Chosen",
    "LocalHeads",
    "Pair",
    "Projections",
    "is_by_layer",
    "params_of_layer",
]


class ByLayer(nn.Module):
    """Heads of which each sees the feature of its own layer and nothing else.

    The parameters of layer i, counted from 1, are named `layer{i}` or `layer{i}_...`, and a
    subclass defines `of_layer`. A term asks for each layer alone, inside of it; a subclass that
    changes `__call__` without `of_layer` is asked for all layers at once. A class that defines both
    promises that `__call__` gives no more than `of_layer` of each layer.
    """

    def __call__(self, features: Sequence[Float[ArrayLike, "batch ... _"]]) -> Any:
        """What the head of each layer gives, of N features.

        Raises:
          ValueError: if there is no layer.
        """
        return tuple(self.of_layer(i, x) for i, x in enumerate(at_least_one(features)))

    def of_layer(self, index: int, feature: Float[ArrayLike, "batch ... _"]) -> Any:
        """What the head of layer `index`, counted from 0, gives of its feature."""
        raise NotImplementedError(f"{type(self).__name__} must define of_layer(index, feature)")


def is_by_layer(heads: nn.Module) -> bool:
    """Whether `of_layer` says all of what heads do: no subclass changed `__call__` alone."""
    if not isinstance(heads, ByLayer):
        return False
    (whole, *_) = (kind for kind in type(heads).__mro__ if "__call__" in vars(kind))
    return "of_layer" in vars(whole)


def params_of_layer(params: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The parameters of `ByLayer` heads that the layer of a number, counted from 0, has.

    Raises:
      ValueError: if a parameter's name says of no layer that it is its own.
    """
    for name in params:
        if not re.match(r"layer\d+(_|$)", name):
            raise ValueError(
                f"parameters {name!r} of heads that are ByLayer: expected names that begin with "
                "their layer's number, such as 'layer1' or 'layer1_conv'"
            )
    own = f"layer{index + 1}"
    return {name: value for name, value in params.items() if name.split("_")[0] == own}


class LocalHeads(ByLayer):
    """One local classifier a layer: max pooling, a 3x3 convolution, a fully connected layer.

    A module of its own, outside the model: its parameters are one tree per use, trained beside the
    model's and dropped with it, and their number is bounded by `width` and `pool`, however wide
    or large a layer is.

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

    def __call__(
        self, features: Sequence[Float[ArrayLike, "batch ... _"]]
    ) -> Float[Array, "layers batch classes"]:
        """Maps N layers' features to logits (N, B, m).

        Args:
          features: for each layer maps (B, H, W, C), sequences (B, L, C) or vectors (B, C), of any
            sizes.

        Raises:
          ValueError: if there is no layer, or one of another rank.
        """
        return jnp.stack(super().__call__(features))

    @nn.compact
    def of_layer(
        self, index: int, feature: Float[ArrayLike, "batch ... _"]
    ) -> Float[Array, "batch classes"]:
        """Maps one layer's feature to its logits (B, m)."""
        x, name = as_map(index, feature), f"layer{index + 1}"
        x = covering_max_pool(x, window(x.shape[1:3], self.pool))
        x = _convolution(self.width, 3, x.shape[-1], self.dtype, f"{name}_conv")(x)
        x = x.reshape(x.shape[0], -1)
        init = of_inputs(x.shape[-1])
        logits = nn.Dense(
            self.num_classes,
            dtype=self.dtype,
            kernel_init=init,
            bias_init=init,
            name=f"{name}_fc",
        )(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class Projections(ByLayer):
    """g_i of Eq. 9: one convolution a layer.

    Attributes:
      width: filters of each convolution.
      kernel_size: side of its square kernel, in pixels.
      pool: maps are averaged to at most this many pixels a side first; 0: they are not.
      dtype: dtype of the computation.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 9.
    """

    width: int = 32
    kernel_size: int = 3
    pool: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def of_layer(
        self, index: int, feature: Float[ArrayLike, "batch ... _"]
    ) -> Float[Array, "batch _ _ projected"]:
        """Projects one layer's feature."""
        x = as_map(index, feature)
        x = covering_average_pool(x, window(x.shape[1:3], self.pool)) if self.pool else x
        name = f"layer{index + 1}"
        return _convolution(self.width, self.kernel_size, x.shape[-1], self.dtype, name)(x)


class Chosen(nn.Module):
    """Heads of some layers alone.

    Attributes:
      heads: a module of heads.
      layers: numbers of the layers, counted from 0; empty: those behind which the map shrinks, or
        all where none does.
    """

    heads: nn.Module
    layers: tuple[int, ...] = ()

    def __call__(self, features: Sequence[Float[ArrayLike, "batch ... _"]]) -> Any:
        """What the heads give of the chosen layers' features.

        Raises:
          ValueError: if a layer is not there.
        """
        return self.heads(_chosen(features, self.layers))


class Hints(nn.Module):
    """Vectors of some layers, as wide as the last layer: pixels' mean, then a linear layer.

    Attributes:
      layers: numbers of the layers, as in `Chosen`.
    """

    layers: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self, features: Sequence[Float[ArrayLike, "batch ... _"]]
    ) -> Float[Array, "layers batch width"]:
        """Maps N layers' features to the chosen ones' vectors; errors as those of `Chosen`."""
        width, vectors = jnp.shape(features[-1])[-1], []
        for number, x in enumerate(as_maps(_chosen(features, self.layers)), start=1):
            init = of_inputs(x.shape[-1])
            dense = nn.Dense(width, kernel_init=init, bias_init=init, name=f"layer{number}")
            vectors.append(dense(x.mean(axis=(1, 2))))
        return jnp.stack(vectors)


class Pair(nn.Module):
    """Two kinds of heads on the same features: what the first gives and what the second gives."""

    first: nn.Module
    second: nn.Module

    def __call__(self, features: Sequence[Float[ArrayLike, "batch ... _"]]) -> tuple[Any, Any]:
        return self.first(features), self.second(features)


def _convolution(filters: int, size: int, channels: int, dtype: Any, name: str) -> nn.Conv:
    return nn.Conv(filters, (size, size), name=name, **convolution_options(size, channels, dtype))


def _chosen(features: Sequence[Any], layers: tuple[int, ...]) -> list[Any]:
    sizes = [x.shape[1:3] for x in as_maps(features)]
    ends = [i for i in range(len(sizes) - 1) if sizes[i + 1] != sizes[i]]
    numbers = layers or ends or range(len(sizes))
    if max(numbers) >= len(sizes):
        raise ValueError(f"layers: {layers} given; expected numbers below {len(sizes)}")
    return [features[i] for i in numbers]


def convolution_options(size: int, channels: int, dtype: Any) -> dict[str, Any]:
    """Options of a head's convolution, which Linen and NNX name alike."""
    init = of_inputs(size * size * channels)
    return {
        "kernel_init": init,
        "bias_init": init,
        "dtype": dtype,
        "conv_general_dilated": conv_general_dilated,
    }


def window(sizes: Sequence[int], pool: int) -> tuple[int, int]:
    """The (vertical, horizontal) window that leaves at most `pool` pixels a side."""
    height, width = sizes
    return -(-height // pool), -(-width // pool)


def as_maps(
    features: Sequence[Float[ArrayLike, "batch ... _"]],
) -> list[Float[Array, "batch _ _ _"]]:
    """Features as maps: a sequence is a map of one row, a vector one of a single pixel."""
    return [as_map(index, feature) for index, feature in enumerate(at_least_one(features))]


def at_least_one(features: Sequence[Any]) -> Sequence[Any]:
    """The features of the layers, of which there must be one."""
    if len(features) == 0:
        raise ValueError("features must hold at least one layer, got an empty sequence")
    return features


def as_map(index: int, feature: Float[ArrayLike, "batch ... _"]) -> Float[Array, "batch _ _ _"]:
    """The feature of a layer as maps."""
    x = jnp.asarray(feature)
    if x.ndim not in (2, 3, 4):
        raise ValueError(
            f"features[{index}] must be maps (batch, height, width, channels), sequences "
            f"(batch, length, channels) or vectors (batch, channels), got shape {x.shape}"
        )
    batch, *pixels, channels = x.shape
    return x.reshape(batch, *[1] * (2 - len(pixels)), *pixels, channels)
