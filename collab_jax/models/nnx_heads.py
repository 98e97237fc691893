"""The parts of `collab_jax.models.heads` as NNX modules, with the same parameters."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

from collab_jax.models.heads import as_maps, convolution_options, window
from collab_jax.models.initial import of_inputs
from collab_jax.models.pooling import covering_average_pool, covering_max_pool

__all__ = ["LocalHeads", "Projections"]


class LocalHeads(nnx.Module):
    """One local classifier a layer, as `collab_jax.models.LocalHeads`.

    Attributes:
      convolutions: a 3x3 convolution a layer.
      classifiers: a fully connected layer for each.
      pool: maps are max-pooled to at most this many pixels a side.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. III-B.
    """

    def __init__(
        self,
        features: Sequence[Any],
        num_classes: int,
        *,
        width: int = 64,
        pool: int = 4,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Makes the heads for features of given shapes.

        Args:
          features: for each layer its features, or what has their shape: maps (B, H, W, C),
            sequences (B, L, C) or vectors (B, C), of any sizes.
          num_classes: m.
          width: filters of the convolutions, whatever the width of the layer.
          pool: maps are max-pooled to at most this many pixels a side.
          dtype: dtype of the computation; logits are returned in float32.
          rngs: the stream `params` gives the initial values.

        Raises:
          ValueError: if there is no layer, or one of another rank.
        """
        self.pool = pool
        convolutions, classifiers = [], []
        for _, height, width_in, channels in _map_shapes(features):
            convolutions.append(_convolution(width, 3, channels, dtype, rngs))
            rows, columns = window((height, width_in), pool)
            inputs = -(-height // rows) * -(-width_in // columns) * width
            init = of_inputs(inputs)
            classifiers.append(
                nnx.Linear(
                    inputs, num_classes, dtype=dtype, kernel_init=init, bias_init=init, rngs=rngs
                )
            )
        self.convolutions, self.classifiers = nnx.List(convolutions), nnx.List(classifiers)

    def __call__(
        self, features: Sequence[Float[ArrayLike, "batch ... _"]]
    ) -> Float[Array, "layers batch classes"]:
        """Maps N layers' features to logits (N, B, m)."""
        logits = []
        parts = zip(as_maps(features), self.convolutions, self.classifiers, strict=True)
        for x, convolution, classifier in parts:
            x = convolution(covering_max_pool(x, window(x.shape[1:3], self.pool)))
            logits.append(classifier(x.reshape(x.shape[0], -1)))
        stacked = jnp.stack(logits)
        return stacked.astype(jnp.promote_types(stacked.dtype, jnp.float32))


class Projections(nnx.Module):
    """g_i of Eq. 9: one convolution a layer, as `collab_jax.models.Projections`.

    Attributes:
      convolutions: a convolution a layer.
      pool: maps are averaged to at most this many pixels a side first; 0: they are not.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 9.
    """

    def __init__(
        self,
        features: Sequence[Any],
        *,
        width: int = 32,
        kernel_size: int = 3,
        pool: int = 0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Makes the projections for features of given shapes.

        Args:
          features: as those of `LocalHeads`.
          width: filters of each convolution.
          kernel_size: side of its square kernel, in pixels.
          pool: maps are averaged to at most this many pixels a side first; 0: they are not.
          dtype: dtype of the computation.
          rngs: the stream `params` gives the initial values.

        Raises:
          ValueError: if there is no layer, or one of another rank.
        """
        self.pool = pool
        self.convolutions = nnx.List(
            _convolution(width, kernel_size, channels, dtype, rngs)
            for *_, channels in _map_shapes(features)
        )

    def __call__(
        self, features: Sequence[Float[ArrayLike, "batch ... _"]]
    ) -> tuple[Float[Array, "batch _ _ projected"], ...]:
        """Projects N layers' features."""
        return tuple(
            convolution(
                covering_average_pool(x, window(x.shape[1:3], self.pool)) if self.pool else x
            )
            for x, convolution in zip(as_maps(features), self.convolutions, strict=True)
        )


def _map_shapes(features: Sequence[Any]) -> list[tuple[int, ...]]:
    return [
        x.shape for x in nnx.eval_shape(lambda: as_maps([jnp.zeros(x.shape) for x in features]))
    ]


def _convolution(filters: int, size: int, channels: int, dtype: Any, rngs: nnx.Rngs) -> nnx.Conv:
    options = convolution_options(size, channels, dtype)
    return nnx.Conv(channels, filters, (size, size), rngs=rngs, **options)
