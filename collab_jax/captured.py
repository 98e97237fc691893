"""What a pass that captures local features gives, the same for both of Flax's module systems."""

from typing import Any, NamedTuple

import jax

__all__ = ["LOCAL_FEATURES", "Captured"]

LOCAL_FEATURES = "local_features"
"""The one name under which a model sows every local feature map, from its root."""


class Captured(NamedTuple):
    """The result of `collab_jax.linen.capture` or `collab_jax.nnx.capture`.

    Attributes:
      outputs: what the model returned.
      features: N local feature maps in depth order, each with a gradient path to its own layer
        alone.
      variables: what the pass updated: in Linen the mutable collections by name, in NNX the batch
        statistics as a state of arrays, which the module itself has taken on as well.
    """

    outputs: Any
    features: tuple[jax.Array, ...]
    variables: Any
