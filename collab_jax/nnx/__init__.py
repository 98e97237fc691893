"""Local back-propagation and feature capture for Flax NNX modules.

`capture` attaches to a model from outside, whose code it leaves as it is; `isolate` is for a model
that calls it itself.
"""

from collab_jax.isolation import LOCAL_FEATURES, Captured
from collab_jax.nnx.attach import capture
from collab_jax.nnx.local import isolate

__all__ = ["LOCAL_FEATURES", "Captured", "capture", "isolate"]
