"""Local back-propagation and feature capture for Flax NNX modules."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from collab_jax import isolation
from collab_jax.isolation import LOCAL_FEATURES, Captured, Paths

__all__ = ["LOCAL_FEATURES", "Captured", "capture", "isolate"]


def isolate(
    layer: Callable[..., Any], *inputs: Any, joint: bool = True, **options: Any
) -> tuple[Any, Any]:
    """Calls an NNX module and gives its output a second, local copy.

    The NNX form of `collab_jax.isolation.isolate`: the module's parameters receive the gradients
    of both copies, and its batch statistics and random number streams move on once, in place.

    Args:
      layer: a callable `nnx.Module`, such as `nnx.Sequential`, or a module of the user's own. It
        may update variables that it has, but not make new ones.
      *inputs: arrays or pytrees of arrays, given to `layer` in this order.
      joint: False runs `layer` a second time with stopped inputs and the same random numbers
        instead, for forward-mode and higher derivatives: the joint form refuses `jax.jvp` with a
        TypeError.
      **options: constants given to `layer` by name, such as `use_running_average=True`.

    Returns:
      `(h, h_local)` of equal value; `h` back-propagates to the parameters and to `inputs`,
      `h_local` to the parameters alone.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. III-B.
    """
    definition, state = nnx.split(layer)

    def call(state: Any, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        # Flax updates a NumPy array in place, which under jit is a constant that others share.
        module: Any = nnx.merge(definition, jax.tree.map(jnp.asarray, state))
        h = module(*inputs, **options)
        # Parameters that a pass does not change keep their one short gradient path.
        _, _, updated = nnx.split(module, nnx.Param, ...)
        return h, updated

    (h, updated), (h_local, _) = isolation.isolate(call, joint=joint)(state, inputs)
    nnx.update(layer, updated)
    return h, h_local


def capture(
    module: nnx.Module, *inputs: Any, name: str = LOCAL_FEATURES, **options: Any
) -> Captured:
    """Runs an NNX model and returns its outputs, its local features and its new statistics.

    The model offers a feature map with `self.sow(nnx.Intermediate, "local_features", h_local)`, all
    of them from the root module and under this one name, so that they come back in the order in
    which they were sown, however many there are. It should do so in training alone, since Flax
    warns of a model that sows and is not run through `capture`.

    Args:
      module: the model, whose batch statistics and random number streams are updated in place.
      *inputs: positional arguments of the model.
      name: the name that the model sows under.
      **options: keyword arguments of the model.

    Returns:
      `(outputs, features, variables, paths)`: what the model returned, a tuple of N arrays, the
      new batch statistics as arrays, which `nnx.update(module, variables)` puts into another copy.

    Raises:
      ValueError: if the model sows nothing under `name` at its root.
    """
    run: Any = nnx.capture(module, nnx.Intermediate)
    outputs, sown = run(*inputs, **options)
    if name not in sown:
        raise ValueError(
            f"module: {type(module).__name__} sows nothing named {name!r} as nnx.Intermediate; "
            f"call self.sow(nnx.Intermediate, {name!r}, h_local) in its __call__ for each layer, "
            "with (h, h_local) from collab_jax.nnx.isolate(layer, x)"
        )
    features = tuple(sown[name].get_value())
    paths = Paths(name if i == 0 else f"{name}#{i + 1}" for i in range(len(features)))
    return Captured(outputs, features, nnx.as_pure(nnx.state(module, nnx.BatchStat)), paths)
