"""Local back-propagation without a module system, and the language that selects layers.

`isolate` gives a pure function's output a local copy. The rest is what `collab_jax.linen` and
`collab_jax.nnx` share: how layers are selected, what a capture gives, and what can be wrong.
"""

from collab_jax.isolation.captured import LOCAL_FEATURES, Calls, Captured, Paths, pick
from collab_jax.isolation.errors import CaptureError
from collab_jax.isolation.local import isolate, joint
from collab_jax.isolation.reading import joint_reading
from collab_jax.isolation.selection import Selection

__all__ = [
    "LOCAL_FEATURES",
    "Calls",
    "CaptureError",
    "Captured",
    "Paths",
    "Selection",
    "isolate",
    "joint",
    "joint_reading",
    "pick",
]
