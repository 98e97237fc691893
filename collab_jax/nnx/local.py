"""One call of an NNX module with a local copy of its output."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from collab_jax import isolation
from collab_jax.isolation.leaves import is_array
from collab_jax.isolation.writes import apply_writes, containers, copies, writes_since

__all__ = ["call_isolated", "isolate"]


def isolate(layer: nnx.Module, *inputs: Any, joint: bool = True, **options: Any) -> tuple[Any, Any]:
    """Calls an NNX module and gives its output a second, local copy.

    The NNX form of `collab_jax.isolation.isolate`: the module's parameters receive the gradients
    of both copies, and its batch statistics and random number streams move on once, in place.
    Parameters are the variables of type `nnx.Param`, or of a type derived from it, that the module
    holds.

    Args:
      layer: a callable `nnx.Module`, such as `nnx.Sequential`, or a module of the user's own. It
        may update variables that it has and write into dicts and lists that it is given, but not
        make new variables.
      *inputs: what `layer` takes, in this order: arrays, pytrees of them, flags, modules such as
        `nnx.Rngs`.
      joint: False runs `layer` a second time with stopped inputs and the same random numbers
        instead, for forward-mode and higher derivatives: the joint form refuses `jax.jvp` with a
        TypeError.
      **options: the same by name, such as `use_running_average=True` or `rngs=rngs`.

    Returns:
      `(h, h_local)` of equal value; `h` back-propagates to the parameters and to all that the layer
      was given, `h_local` to the parameters alone. What is no array in the output is in both.

    Raises:
      TypeError: if `layer` is no module.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. III-B.
    """
    if not isinstance(layer, nnx.Module) or not callable(layer):
        raise TypeError(
            f"layer must be an nnx.Module with a __call__, got {layer!r}; a function of "
            "(params, x) has collab_jax.isolation.isolate"
        )
    h, local = call_isolated(layer, type(layer).__call__, inputs, options, lambda h: h, joint=joint)
    return h, local


def call_isolated(
    module: nnx.Module,
    call: Callable[..., Any],
    inputs: tuple[Any, ...],
    options: dict[str, Any],
    local_of: Callable[[Any], Any],
    *,
    twin: Any = None,
    joint: bool = True,
) -> tuple[Any, Any]:
    """Runs `call(module, *inputs, **options)` once, with a local copy.

    Args:
      module: whose parameters the local copy reaches.
      call: the unbound method.
      inputs: positional arguments after the module.
      options: keyword arguments.
      local_of: gives the local copy from the output; any pytree.
      twin: the local copy of `inputs[0]`, an array, which the local copy then reaches too.
      joint: as in `isolate`.

    Returns:
      The output and the local copy. Variables of the module and of modules among the arguments, and
      dicts and lists among these, are updated in place.
    """
    leaves, structure = jax.tree.flatten((inputs, options), is_leaf=_is_node)
    nodes = [place for place, leaf in enumerate(leaves) if _is_node(leaf)]
    bundle = (module, *(leaves[place] for place in nodes))
    definition, params, rest = nnx.split(bundle, _is_param_of_the_first, ...)
    plain = [None if _is_node(leaf) else leaf for leaf in leaves]

    def run(params: Any, first: Any, rest: Any, plain: Any) -> tuple[Any, Any]:
        # Flax updates a NumPy array in place, which under jit is a constant that others share.
        params, rest = jax.tree.map(jnp.asarray, (params, rest))
        copy = nnx.merge(definition, params, rest, copy=True)
        before = {path: jax.tree.leaves(variable) for path, variable in _variables(copy)}
        full = list(plain)
        for place, node in zip(nodes, copy[1:], strict=True):
            full[place] = node
        arguments, named = jax.tree.unflatten(structure, full)
        if first is not None:
            arguments = (first, *arguments[1:])
        written = containers((arguments, named))
        contents = copies(written)
        h = call(copy[0], *arguments, **named)
        # Variables that the pass does not change keep their one short gradient path.
        changed = [
            (path, variable)
            for path, variable in _variables(copy)
            if path not in before or not _same(jax.tree.leaves(variable), before[path])
        ]
        return (h, changed, writes_since(contents, written)), local_of(h)

    first = None
    if twin is not None:
        first, plain = inputs[0], [None, *plain[1:]]
    if not joint:
        main, _ = run(params, first, rest, plain)
        _, local = run(params, twin, *jax.tree.map(_stopped, (rest, plain)))
        result = main, local
    elif twin is not None:
        result = isolation.joint(run, follows=True)(params, first, twin, rest, plain)
    else:
        result = isolation.joint(run)(params, None, rest, plain)
    (h, changed, writes), local = result
    if changed:
        nnx.update(bundle, _nested(changed))
    apply_writes(writes, containers((inputs, options)))
    return h, local


def _is_node(leaf: Any) -> bool:
    return isinstance(leaf, (nnx.Pytree, nnx.Variable))


def _is_param_of_the_first(path: tuple[Any, ...], value: Any) -> bool:
    return path[0] == 0 and isinstance(value, nnx.Param)


def _stopped(leaf: Any) -> Any:
    return jax.lax.stop_gradient(leaf) if is_array(leaf) else leaf


def _variables(bundle: Any) -> Iterable[tuple[tuple[Any, ...], Any]]:
    return nnx.to_flat_state(nnx.state(bundle))


def _nested(flat: list[tuple[tuple[Any, ...], Any]]) -> dict[Any, Any]:
    """A state from its paths, whose keys may be names and numbers side by side."""
    nested: dict[Any, Any] = {}
    for path, value in flat:
        node = nested
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return nested


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
