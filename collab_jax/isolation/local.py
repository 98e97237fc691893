"""Local back-propagation: a layer's output in two copies, one of which moves that layer alone."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

from collab_jax.isolation.leaves import apart

__all__ = ["constant_derivatives", "isolate", "joint", "pullback"]

_jax = cast(Any, jax)  # whose own annotations of vjp and custom_vjp are partial
_zeros_like = cast(Any, jnp).zeros_like

Output = TypeVar("Output")


def isolate(
    layer: Callable[..., Output], *, joint: bool = True
) -> Callable[..., tuple[Output, Output]]:
    """Gives a layer a second output that back-propagates to the layer's own parameters only.

    For `h = layer(params, x)` the returned function computes `(h, h_local)` with
    `h_local == h`. A loss on `h` reaches `params` and `x`; a loss on `h_local` reaches
    `params` alone, and its gradient with respect to `x` is exactly zero. This is the local
    back-propagation of L_mid and L_pull-push.

    The joint form runs the layer once. A pullback is linear in its cotangent, so that the
    parameters receive the pullback of the sum of both cotangents and the input that of `h`'s
    cotangent: each weight gradient is computed once, whatever the number of local losses. It is
    differentiated once and in reverse: forward mode and a second derivative raise a TypeError,
    since they would pass through the input that the local gradient takes for a constant.

    Args:
      layer: a pure function `(params, *inputs) -> h`; each of these may be any pytree. What is
        no array in it (a flag, a name, a function) is a constant and comes through as it is.
        A residual layer takes its skip as an input, which stops the local gradient there.
      joint: False gives the plain form, `layer(params, stop_gradient(x))`, which runs the layer
        twice. It is the one to differentiate in forward mode or more than once.

    Returns:
      A function `(params, *inputs) -> (h, h_local)`. It works under `jit`, `vmap`, `scan` and
      `jax.checkpoint`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> double = isolate(lambda scale, x: scale * x)
      >>> jax.grad(lambda scale, x: double(scale, x)[1], argnums=(0, 1))(2.0, 3.0)
      (Array(3., dtype=float32, weak_type=True), Array(0., dtype=float32, weak_type=True))

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. III-B and
      III-C ("only update the connection weights of the i-th layer").
    """
    if not joint:

        def plain(params: Any, *inputs: Any) -> tuple[Output, Output]:
            arrays, restore = apart(inputs)
            stopped = restore([jax.lax.stop_gradient(array) for array in arrays])
            return layer(params, *inputs), layer(params, *stopped)

        return plain

    def pair(params: Any, *inputs: Any) -> tuple[Output, Output]:
        h = layer(params, *inputs)
        return h, h

    return _joint(pair)


def joint(
    run: Callable[..., tuple[Any, Any]], *, follows: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Keeps the gradient of a function's second output away from all but its first argument.

    What `isolate` is made of, for a layer that has more to give than its output: new batch
    statistics beside it, or a local copy that is not the output itself but a part of it.

    Args:
      run: `(params, *inputs) -> (main, local)`, pytrees as those of `isolate`. Cotangents of
        `main` go to all arguments, those of `local` to `params` alone.
      follows: the function returned is `(params, x, x_local, *inputs) -> (main, local)`, where
        `x` is the first input of `run` and `x_local`, of equal value and structure, is what an
        earlier layer gave as its local copy. Cotangents of `local` then reach `x_local` too, so
        that two layers in a row are isolated as one.

    Returns:
      The function whose gradient is local; it runs `run` once.
    """
    if not follows:
        return _joint(run)

    def after(params: Any, x: Any, x_local: Any, *inputs: Any) -> tuple[Any, Any]:
        return _joint(run, apart(x_local)[0])(params, x, *inputs)

    return after


def _joint(run: Callable[..., Any], twins: list[Any] | None = None) -> Callable[..., Any]:
    """The joint form of `run`; `twins` are the local copies of its first input's arrays."""

    def joined(params: Any, *inputs: Any) -> tuple[Any, Any]:
        weights, restore_params = apart(params)
        first, restore_first = apart(inputs[:1])
        others, restore_others = apart(inputs[1:])
        restore: dict[str, Callable[[list[Any]], Any]] = {}

        def alone(weights: Any, first: Any, others: Any) -> tuple[Any, Any]:
            main, local = run(
                restore_params(weights), *restore_first(first), *restore_others(others)
            )
            arrays: dict[str, list[Any]] = {}
            for name, tree in (("main", main), ("local", local)):
                arrays[name], restore[name] = apart(tree)
            return arrays["main"], arrays["local"]

        def pair(weights: Any, first: Any, others: Any, _: Any) -> tuple[Any, Any]:
            return alone(weights, first, others)

        def forward(weights: Any, first: Any, others: Any, _: Any) -> tuple[Any, Any]:
            return _jax.vjp(alone, weights, first, others)

        joined = _jax.custom_vjp(pair)
        joined.defvjp(forward, _pullback_after if twins is not None else pullback)
        main, local = joined(weights, first, others, twins)
        return restore["main"](main), restore["local"](local)

    return joined


def pullback(pull: Callable[[Any], tuple[Any, ...]], cotangents: Any) -> tuple[Any, ...]:
    """The backward rule: the parameters' part of both cotangents, the inputs' part of the main."""
    main, local = cotangents
    of_params, *_ = pull((main, local))
    if _bytes(main) > _bytes(of_params):
        # Maps are then released before the inputs' part makes others of their size.
        main, of_params = _jax.lax.optimization_barrier((main, of_params))
    _, *of_inputs = pull((main, _zeros(local)))
    return (*constant_derivatives((of_params, *of_inputs)), None)


def _pullback_after(pull: Callable[[Any], tuple[Any, ...]], cotangents: Any) -> tuple[Any, ...]:
    """As `pullback`, with the first input's part of the local cotangent for its local copy."""
    *of_run, _ = pullback(pull, cotangents)
    main, local = cotangents
    _, of_twins, _ = pull((_zeros(main), local))
    return (*of_run, constant_derivatives(of_twins))


def _zeros(cotangents: Any) -> Any:
    def zero(cotangent: Any) -> Any:
        return cotangent if cotangent.dtype == jax.dtypes.float0 else _zeros_like(cotangent)

    return jax.tree.map(zero, cotangents)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def constant_derivatives(cotangents: Any) -> Any:
    """A pytree of cotangents whose own derivatives raise an error."""
    leaves, structure = _jax.tree.flatten(cotangents)
    places = [i for i, leaf in enumerate(leaves) if leaf.dtype != jax.dtypes.float0]
    for place, leaf in zip(places, _refuse_derivatives([leaves[i] for i in places]), strict=True):
        leaves[place] = leaf
    return _jax.tree.unflatten(structure, leaves)


@_jax.custom_jvp
def _refuse_derivatives(cotangents: list[Any]) -> list[Any]:
    return cotangents


@_refuse_derivatives.defjvp
def _raise(primals: Any, tangents: Any) -> Any:
    raise TypeError(
        "isolate: the joint form is differentiated once; joint=False gives second derivatives"
    )
