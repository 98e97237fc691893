"""Branches of a network with dropout of its own: its examples, run several times in one pass."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from collab_jax.isolation.selection import Select, Selection

__all__ = ["repeat", "repeated_behind", "to_branches"]


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
      ValueError: if it selects no module that is called, or one more than once.
    """
    selection = Selection(split_at, "split_at")
    met: list[str] = []
    called: list[str] = []

    def intercept(
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        output = next_call(*args, **kwargs)
        path = "/".join(context.module.path)
        if context.method_name != "__call__":
            return output
        called.append(path)
        if not selection.matches(path, context.module):
            return output
        met.append(path)
        return repeat(output, runs)

    with nn.intercept_methods(intercept):
        yield
    if len(met) != 1:
        there = ", ".join(dict.fromkeys(filter(None, called)))
        found = f"matches {', '.join(met)}" if met else f"matches none of {there}"
        raise ValueError(
            f"{selection} {found}; expected one module that is called once and is no layer that "
            "features are captured of"
        )
