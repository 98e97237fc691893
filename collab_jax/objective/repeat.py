"""Branches of a network with dropout of its own: its examples, run several times in one pass."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from collab_jax.isolation.errors import CaptureError
from collab_jax.isolation.selection import Select, Selection
from collab_jax.linen.interception import intercepted
from collab_jax.linen.joint import isolated_path

__all__ = ["repeat", "repeated_behind", "to_branches"]

_EXPECTED = "expected one module that is called once"


def repeat(tree: Any, runs: int) -> Any:
    """Arrays (B, ...) to (H * B, ...): the whole batch H times."""
    return jax.tree.map(lambda x: jnp.tile(x, (runs, *[1] * (x.ndim - 1))), tree)


def to_branches(logits: Array, runs: int, batch: int) -> Array:
    """Logits (H * B, ..., m) or (K, H * B, ..., m) to (H, B, ..., m) or (K * H, B, ..., m).

    Raises:
      ValueError: if neither axis is H * B long.
    """
    axis = 0 if logits.shape[0] == runs * batch else 1
    if logits.shape[axis : axis + 1] != (runs * batch,):
        raise ValueError(
            f"logits: shape {logits.shape} of {batch} examples repeated {runs} times; expected an "
            f"axis of {runs * batch} first, or behind one of branches"
        )
    return logits.reshape(-1, batch, *logits.shape[axis + 1 :])


@contextmanager
def repeated_behind(split_at: Select, runs: int) -> Iterator[None]:
    """Repeats the output of the module that a selection names, for all Linen modules in it.

    What comes before the module runs once. Each copy of an example draws dropout masks of its own
    behind it.

    Args:
      split_at: the module, as `layers` of `linen.capture`.
      runs: H.

    Raises:
      CaptureError: if it selects no module that is called, one more than once, one inside of a
        layer that features are captured of, or one behind which no random number is drawn though
        some are before it, so that all runs would be equal.
    """
    selection = Selection(split_at, "split_at")
    met: list[str] = []
    called: list[str] = []
    active: list[str] = []
    drew: dict[bool, list[str]] = {False: [], True: []}

    def intercept(
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        if module.scope is None or context.method_name == "setup":
            return next_call(*args, **kwargs)
        path, counters = "/".join(module.path), module.scope.rng_counters
        before = _drawn(counters)
        if context.method_name == "__call__":
            called.append(path)
            output = called_module(path, module, lambda: next_call(*args, **kwargs))
        else:
            output = next_call(*args, **kwargs)
        if _drawn(counters) > before:
            drew[bool(met) and path not in met].append(path)
        return output

    def called_module(path: str, module: nn.Module, call: Callable[[], Any]) -> Any:
        # A layer that features are captured of calls itself once more, and may do so late.
        isolated = isolated_path()
        if path in (*active, isolated) or not selection.matches(path, module):
            return call()
        if isolated is not None:
            raise wrong(
                f"matches {path} inside of {isolated}, a layer that features are captured of; "
                "expected that layer, or a module outside of it"
            )
        active.append(path)
        try:
            output = call()
        finally:
            active.pop()
        met.append(path)
        if len(met) > 1:  # At once: what follows would be told in words on other arguments.
            raise wrong(f"matches {', '.join(met)}; {_EXPECTED}")
        return repeat(output, runs)

    def wrong(found: str) -> CaptureError:
        return CaptureError(f"{selection} {found}", selection.argument)

    with intercepted(intercept):
        yield
    if not met:
        there = ", ".join(dict.fromkeys(filter(None, called)))
        raise wrong(f"matches none of {there}; {_EXPECTED}")
    if drew[False] and not drew[True]:
        raise wrong(
            f"matches {met[0]}, behind which no random number is drawn, so that all {runs} runs "
            f"are equal; expected a module before {drew[False][0]}, which draws some"
        )


def _drawn(counters: Mapping[Any, Any]) -> int:
    """How many random numbers a module has drawn itself, from all streams."""
    return sum(count for count in counters.values() if isinstance(count, int))
