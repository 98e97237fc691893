"""Local back-propagation: a layer's output in two copies, one of which moves that layer alone."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

__all__ = ["isolate", "joint_pullback"]

_jax = cast(Any, jax)  # whose own annotations of vjp and custom_vjp are partial

Params = TypeVar("Params")
Input = TypeVar("Input")
Output = TypeVar("Output")


def isolate(
    layer: Callable[[Params, Input], Output], *, joint: bool = True
) -> Callable[[Params, Input], tuple[Output, Output]]:
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
      layer: a pure function `(params, x) -> h`; each of the three may be any pytree of arrays.
        A residual layer takes its skip as a part of `x`, which stops the local gradient there.
      joint: False gives the plain form, `layer(params, stop_gradient(x))`, which runs the layer
        twice. It is the one to differentiate in forward mode or more than once.

    Returns:
      A function `(params, x) -> (h, h_local)`. It works under `jit`, `vmap`, `scan` and
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

        def plain(params: Params, x: Input) -> tuple[Output, Output]:
            return layer(params, x), layer(params, jax.lax.stop_gradient(x))

        return plain

    def pair(params: Params, x: Input) -> tuple[Output, Output]:
        h = layer(params, x)
        return h, h

    def forward(params: Params, x: Input) -> tuple[tuple[Output, Output], Any]:
        h, pullback = _jax.vjp(layer, params, x)
        return (h, h), pullback

    joined = _jax.custom_vjp(pair)
    joined.defvjp(forward, joint_pullback)
    return joined


def joint_pullback(
    pullback: Callable[[Output], tuple[Any, ...]], cotangents: tuple[Output, Output]
) -> tuple[Any, ...]:
    """The backward rule of a joint layer, from the pullback of the layer itself.

    Args:
      pullback: maps a cotangent of the layer's output to those of `(params, *inputs)`.
      cotangents: those of `(h, h_local)`, pytrees of one structure; integers have dtype float0.

    Returns:
      The parameters' part of the pullback of the sum, and the inputs' parts of that of `h`'s own.
    """

    def add(a: Any, b: Any) -> Any:
        return a if a.dtype == jax.dtypes.float0 else jnp.add(a, b)

    main: Any
    main, local = cotangents
    params_cotangent, *_ = pullback(jax.tree.map(add, main, local))
    if _bytes(main) > _bytes(params_cotangent):
        # Maps are then released before the input's part makes others of their size.
        main, params_cotangent = _jax.lax.optimization_barrier((main, params_cotangent))
    _, *input_cotangents = pullback(main)
    return jax.tree.map(_constant_derivative, (params_cotangent, *input_cotangents))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _constant_derivative(cotangent: Any) -> Any:
    return cotangent if cotangent.dtype == jax.dtypes.float0 else _refuse_derivatives(cotangent)


@_jax.custom_jvp
def _refuse_derivatives(cotangent: Any) -> Any:
    return cotangent


@_refuse_derivatives.defjvp
def _raise(primals: Any, tangents: Any) -> Any:
    raise TypeError(
        "isolate: the joint form is differentiated once; joint=False gives second derivatives"
    )
