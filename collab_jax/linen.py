"""Local back-propagation and feature capture for Flax Linen modules."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from collab_jax.isolation import LOCAL_FEATURES, Captured, Paths

_jax = cast(Any, jax)

__all__ = ["LOCAL_FEATURES", "Captured", "capture", "isolate"]


def isolate(layer: nn.Module, *inputs: Any, joint: bool = True, **options: Any) -> tuple[Any, Any]:
    """Calls a Linen submodule and gives its output a second, local copy.

    The Linen form of `collab_jax.isolation.isolate`: the submodule runs once, updates its batch
    statistics once, and its parameters receive the gradients of both copies.

    Args:
      layer: a submodule of the module that calls this function; its variables keep their places.
      *inputs: arrays or pytrees of arrays, given to `layer` in this order.
      joint: False runs `layer` with stopped inputs a second time instead, for forward-mode and
        higher derivatives; a layer with batch statistics must then be in inference mode, or it
        would update them twice.
      **options: constants given to `layer` by name, such as `train=True`.

    Returns:
      `(h, h_local)` of equal value; `h` back-propagates to the parameters and to `inputs`,
      `h_local` to the parameters alone.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. III-B.
    """

    def call(module: nn.Module, *arrays: Any) -> Any:
        return module(*arrays, **options)

    if not joint:
        return call(layer, *inputs), call(layer, *jax.lax.stop_gradient(inputs))

    def pair(module: nn.Module, *arrays: Any) -> tuple[Any, Any]:
        h = call(module, *arrays)
        return h, h

    def forward(module: nn.Module, *arrays: Any) -> tuple[tuple[Any, Any], Any]:
        h, pullback = nn.vjp(call, module, *arrays)
        return (h, h), pullback

    return nn.custom_vjp(pair, forward_fn=forward, backward_fn=_pullback)(layer, *inputs)


def capture(
    module: nn.Module,
    variables: Mapping[str, Any],
    *inputs: Any,
    name: str = LOCAL_FEATURES,
    mutable: Sequence[str] = ("batch_stats",),
    **options: Any,
) -> Captured:
    """Runs a Linen model and returns its outputs, its local features and its new variables.

    The model offers a feature map with `self.sow("intermediates", "local_features", h_local)`, all
    of them from the root module and under this one name, so that they come back in the order in
    which they were sown, however many there are.

    Args:
      module: the model.
      variables: its variable collections.
      *inputs: positional arguments of `module.apply`.
      name: the name that the model sows under.
      mutable: the collections that the pass updates.
      **options: keyword arguments of `module.apply`, such as `train=True` and `rngs`.

    Returns:
      `(outputs, features, variables, paths)`: what the model returned, a tuple of N arrays, and the
      updated collections.

    Raises:
      ValueError: if the model sows nothing under `name` at its root.
    """
    outputs, updated = module.apply(
        variables, *inputs, mutable=[*mutable, "intermediates"], **options
    )
    variables = dict(updated)
    features = variables.pop("intermediates", {}).get(name)
    if not features:
        raise ValueError(
            f"module: {type(module).__name__} sows nothing named {name!r} into 'intermediates'; "
            f"call self.sow('intermediates', {name!r}, h_local) in its __call__ for each layer, "
            "with (h, h_local) from collab_jax.linen.isolate(layer, x)"
        )
    paths = Paths(name if i == 0 else f"{name}#{i + 1}" for i in range(len(features)))
    return Captured(outputs, tuple(features), variables, paths)


def _pullback(pullback: Any, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """The backward rule of a joint layer, from the pullback of the layer itself."""

    def add(a: Any, b: Any) -> Any:
        return a if a.dtype == jax.dtypes.float0 else jnp.add(a, b)

    main, local = cotangents
    params_cotangent, *_ = pullback(jax.tree.map(add, main, local))
    main, params_cotangent = _jax.lax.optimization_barrier((main, params_cotangent))
    _, *input_cotangents = pullback(main)
    return (params_cotangent, *input_cotangents)
