"""A Linen submodule's output in two copies, for models that call it themselves."""

from typing import Any

import flax.linen as nn

from collab_jax.linen.joint import joint_call

__all__ = ["isolate"]


def isolate(layer: nn.Module, *inputs: Any, joint: bool = True, **options: Any) -> tuple[Any, Any]:
    """Calls a Linen submodule and gives its output a second, local copy.

    The Linen form of `collab_jax.isolation.isolate`, for any module: one that holds modules
    (`nn.Sequential`), returns a tuple or a dictionary, draws random numbers, sows, or writes into
    a dictionary that it is given. It runs once and updates its variables once; what it sows and
    writes keeps its gradient.

    Args:
      layer: a submodule of the module that calls this function; its variables keep their places.
      *inputs: given to `layer` in this order: arrays, pytrees of them, and constants such as flags.
        A residual layer takes its skip as one more input, which stops the local gradient there.
      joint: False runs `layer` a second time with stopped inputs instead, for forward-mode and
        higher derivatives; variables are updated and random numbers drawn as if it ran once.
      **options: given to `layer` by name, likewise.

    Returns:
      `(h, h_local)` of equal value; `h` back-propagates to the layer's parameters and to `inputs`,
      `h_local` to the parameters alone: those in `params` and in every other collection that the
      pass does not update.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. III-B.
    """
    return joint_call(layer, inputs, options, joint=joint)
