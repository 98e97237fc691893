"""One call of a Linen module with two outputs, of which one moves the module alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
from flax.core import lift
from flax.core.scope import subtract_filters, union_filters
from flax.linen.transforms import decorator_lift_transform
from jax.tree_util import Partial

from collab_jax import isolation
from collab_jax.isolation.leaves import apart
from collab_jax.isolation.writes import apply_writes, containers, copies, writes_since

__all__ = ["isolated_path", "joint_call"]

_running: list[str] = []


def isolated_path() -> str | None:
    """The path of the module whose isolated call is being traced; None outside of any."""
    return _running[-1] if _running else None


def joint_call(
    module: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    joint: bool = True,
    local_inputs: Mapping[int, Any] | None = None,
    within: Callable[[Callable[[], Any]], Any] = lambda call: call(),
    reader: Any = None,
    remat: bool = False,
) -> tuple[Any, Any]:
    """Calls a bound module and gives its output a second copy, whose gradient stays in it.

    The module's own parameters are `params` and every other collection that the pass does not
    update: they receive the gradients of both copies. Its inputs, and what it finds in collections
    that the pass updates, receive those of the first copy and of the updated variables.

    Args:
      module: a bound module; its variables keep their places.
      args: its positional arguments, arrays and anything else.
      kwargs: its keyword arguments, likewise.
      joint: False runs the module a second time instead, with stopped inputs, the same random
        numbers and no second update of its variables.
      local_inputs: for leaves of `(args, kwargs)`, by their numbers, arrays of equal value on which
        the second copy depends in their place.
      within: runs the module's call, each time that it is traced.
      reader: for the joint form without local inputs, what reads the second copy in its place, as
        in `isolation.joint_reading`.
      remat: likewise.

    Returns:
      `(h, h_local)`, or `(h, reader(h_local))`.
    """
    if module.is_initializing():
        h = module(*args, **kwargs)
        return h, h
    leaves, structure = jax.tree.flatten((args, kwargs))
    local_inputs = local_inputs or {}
    given = containers((args, kwargs))
    restore: dict[str, Callable[[list[Any]], Any]] = {}

    def isolated(module: nn.Module, *leaves: Any) -> Any:
        args, kwargs = jax.tree.unflatten(structure, leaves)
        found = containers((args, kwargs))
        before = copies(found)
        _running.append("/".join(module.path))
        try:
            output = within(lambda: module(*args, **kwargs))
        finally:
            _running.pop()
        arrays, restore["output"] = apart(output)
        written, restore["written"] = apart(writes_since(before, found))
        return arrays, written

    lifted: Any = decorator_lift_transform(
        _lift,
        isolated,
        mutable=False if module.scope is None else module.scope.mutable,
        joint=joint,
        places=tuple(local_inputs),
        read=None if reader is None else lambda reader, arrays: reader(restore["output"](arrays)),
        remat=remat,
    )
    if reader is not None:
        arrays, found, written = lifted(module, *leaves, reader)
        apply_writes(restore["written"](written), given)
        return restore["output"](arrays), found
    arrays, local_arrays, written = lifted(module, *leaves, *local_inputs.values())
    apply_writes(restore["written"](written), given)
    return restore["output"](arrays), restore["output"](local_arrays)


def _lift(
    call: Callable[..., Any],
    *,
    mutable: Any,
    joint: bool,
    places: tuple[int, ...],
    read: Callable[[Any, Any], Any] | None,
    remat: bool,
) -> Callable[..., Any]:
    """Lifts `call(scopes, *leaves) -> (output, written)` to `(output, local output, written)`.

    With `read`, the reader comes behind the leaves and what it reads in place of the local output.
    """
    own = union_filters("params", subtract_filters(True, mutable))

    def inner(scope_fn: Any, repack_fn: Any, groups: Any, rngs: Any, *leaves: Any) -> Any:
        reader = None
        if read is not None:
            leaves, reader = leaves[:-1], leaves[-1]
        count = len(leaves) - len(places)
        leaves, local = leaves[:count], leaves[count:]
        same_numbers = _SameNumbers()

        def run(own: Any, followed: Any, others: Any, rngs: Any, leaves: Any) -> Any:
            filled = list(leaves)
            for place, leaf in zip(places, followed, strict=True):
                filled[place] = leaf
            scopes = scope_fn((own, others), rngs)
            with same_numbers(scopes):
                h, written = call(scopes, *filled)
            return (h, written, repack_fn(scopes)), h

        own_variables, others = groups
        followed = tuple(leaves[place] for place in places)
        rest = (others, rngs, tuple(None if i in places else x for i, x in enumerate(leaves)))
        if read is not None:
            reading = isolation.joint_reading(run, remat=remat)
            reader = Partial(read, reader)
            (h, written, updated), h_local = reading(own_variables, reader, followed, *rest)
        elif joint:
            first = (followed, local) if places else (followed,)
            both = isolation.joint(run, follows=bool(places))
            (h, written, updated), h_local = both(own_variables, *first, *rest)
        else:
            (h, written, updated), _ = run(own_variables, followed, *rest)
            _, h_local = run(own_variables, local, *_stopped(rest))
        return (h, h_local, written), updated

    return lift.pack(inner, (own, True), (True,), (True,), name="isolated")


def _stopped(tree: Any) -> Any:
    arrays, restore = apart(tree)
    return restore([jax.lax.stop_gradient(array) for array in arrays])


class _SameNumbers:
    """Lets every trace of a call draw the random numbers that its first one drew.

    Flax counts what a scope has drawn in a dictionary that all traces share, and a forward rule may
    be traced a second time, long after the call.
    """

    def __init__(self) -> None:
        self._start: list[dict[Any, Any]] | None = None

    @contextmanager
    def __call__(self, scopes: Any) -> Iterator[None]:
        counters = [scope.rng_counters for scope in jax.tree.leaves(scopes)]
        before = [_copy(counter) for counter in counters]
        if self._start is None:
            self._start = before
            yield
            return
        for counter, start in zip(counters, self._start, strict=True):
            _assign(counter, start)
        yield
        for counter, value in zip(counters, before, strict=True):
            _assign(counter, value)


def _copy(counter: dict[Any, Any]) -> dict[Any, Any]:
    # Not deeply: Flax tells some keys by their identity.
    return {k: _copy(item) if isinstance(item, dict) else item for k, item in counter.items()}


def _assign(counter: dict[Any, Any], value: dict[Any, Any]) -> None:
    """Sets a dictionary's contents in place, and those of the dictionaries in it."""
    for key in counter.keys() - value.keys():
        del counter[key]
    for key, item in value.items():
        if isinstance(item, dict):
            _assign(counter.setdefault(key, {}), item)
        else:
            counter[key] = item
