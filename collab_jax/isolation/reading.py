"""A local copy that is read inside of its layer, so that nothing of its size leaves it."""

from collections.abc import Callable
from typing import Any, cast

import jax

from collab_jax.isolation.leaves import apart
from collab_jax.isolation.local import constant_derivatives, pullback

__all__ = ["joint_reading"]

_jax = cast(Any, jax)  # whose own annotations of vjp, custom_vjp and checkpoint are partial

_CHEAP = frozenset(
    "abs add add_any and broadcast_in_dim clamp convert_element_type copy div eq erf exp ge gt "
    "integer_pow iota le log log1p logistic max min mul ne neg not or pad reshape rsqrt "
    "select_n sign slice sqrt square squeeze sub tanh transpose".split()
)
"""Primitives that read each value about once: XLA computes them on the way to what needs them.

`lt` is none, by which dropout draws its masks: what is kept is the mask, not the random numbers.
"""


def joint_reading(
    run: Callable[..., tuple[Any, Any]], *, remat: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Reads a function's second output inside of it, and keeps the reading's gradient there.

    A local loss mostly needs a few numbers of a layer, such as a local classifier's logits. Where
    they are computed outside of it, from the local copy, nothing says when their gradient is: XLA
    takes it for all layers at once, before the backward pass comes to them, and keeps an array of
    the size of each map until then. In here it waits for the layer's own backward pass.

    That begins from what the layer's and the reading's products and convolutions gave: what is
    cheap to compute, such as a normalisation and an activation, is computed anew.

    Args:
      run: `(params, *inputs) -> (main, local)`, as for `joint`.
      remat: whether the whole reading is computed anew: less memory, more compute.

    Returns:
      A function `(params, reader, *inputs) -> (main, reader(local))`. The reader is a pytree that
      can be called, such as a `jax.tree_util.Partial`, whose arrays are differentiated; a plain
      function has none, and must close over none that are. Cotangents of `main` go to `params` and
      `inputs`, those of the reading to the reader and to `params`.
    """

    def reading(params: Any, reader: Any, *inputs: Any) -> tuple[Any, Any]:
        weights, restore_params = apart(params)
        held, restore_reader = apart(reader)
        arrays, restore_inputs = apart(inputs)
        restore: dict[str, Callable[[list[Any]], Any]] = {}

        def alone(weights: Any, arrays: Any) -> tuple[Any, Any]:
            main, local = run(restore_params(weights), *restore_inputs(arrays))
            main, restore["main"] = apart(main)
            local, restore["local"] = apart(local)
            return main, local

        def read(held: Any, local: Any) -> Any:
            found, restore["found"] = apart(restore_reader(held)(restore["local"](local)))
            return found

        def pair(weights: Any, held: Any, arrays: Any) -> tuple[Any, Any]:
            main, local = alone(weights, arrays)
            return main, read(held, local)

        def forward(weights: Any, held: Any, arrays: Any) -> tuple[Any, Any]:
            (main, local), pull = _jax.vjp(alone, weights, arrays)
            if remat:
                # Not together: a pass that is rematerialised as a whole would read once more.
                return (main, read(held, local)), (pull, held, local)
            found, pull_reading = _jax.vjp(read, held, local)
            return _together((main, found)), (pull, pull_reading)

        def backward(kept: Any, cotangents: Any) -> tuple[Any, ...]:
            (pull, *of_reading), (main, found) = kept, cotangents
            pull_reading = _jax.vjp(read, *of_reading)[1] if remat else of_reading[0]
            of_held, of_local = pull_reading(found)
            of_weights, of_arrays, _ = pullback(pull, (main, of_local))
            return of_weights, constant_derivatives(of_held), of_arrays

        once = _jax.custom_vjp(pair)
        once.defvjp(forward, backward)
        main, found = _jax.checkpoint(once, policy=_kept)(weights, held, arrays)
        return restore["main"](main), restore["found"](found)

    return reading


def _kept(primitive: Any, *_: Any, **params: Any) -> bool:
    """Whether the backward pass keeps what a primitive gives; a call's is what it calls."""
    inner = [getattr(value, "jaxpr", value) for value in params.values()]
    called = [equation for jaxpr in inner for equation in getattr(jaxpr, "eqns", ())]
    if called:
        return any(_kept(equation.primitive, **equation.params) for equation in called)
    return primitive.name not in _CHEAP


def _together(outputs: Any) -> Any:
    """Lets the pass go on once the reading is done, while the map that it reads is there."""
    leaves, structure = _jax.tree.flatten(outputs)
    kind = _jax.numpy.floating
    floating = [i for i, leaf in enumerate(leaves) if _jax.numpy.issubdtype(leaf.dtype, kind)]
    waited = _jax.lax.optimization_barrier([leaves[i] for i in floating])
    for i, leaf in zip(floating, waited, strict=True):
        leaves[i] = leaf
    return _jax.tree.unflatten(structure, leaves)
