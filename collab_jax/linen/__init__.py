"""Attaches to Flax Linen models: local features of any layer, without an edited line.

`capture` runs a model and gives the local copies of the layers that a selection names. `isolate`
is for models that make their local copies themselves.
"""

from collab_jax.isolation import LOCAL_FEATURES, Captured, CaptureError
from collab_jax.linen.attach import capture
from collab_jax.linen.local import isolate

__all__ = ["LOCAL_FEATURES", "CaptureError", "Captured", "capture", "isolate"]
