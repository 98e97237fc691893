"""Dropout behind layers of a network that is not edited, in training passes alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
from jaxtyping import Array, PRNGKeyArray

from collab_jax.isolation.selection import Select, Selection
from collab_jax.linen.interception import intercepted

__all__ = ["Drop", "dropped_behind"]

Drop = Callable[[PRNGKeyArray, Array], Array]
"""An array with parts of it dropped, as a key decides."""


@contextmanager
def dropped_behind(layers: Select, drop: Drop) -> Iterator[None]:
    """Drops parts of what the layers that a selection names return, for all Linen modules in it.

    What follows a layer reads the array with the parts dropped; its captured local feature is
    whole. Each call draws from the pass's random numbers of the name `dropout`.

    Args:
      layers: a selection, as in `linen.capture`.
      drop: what is done to each output.

    Raises:
      ValueError: if it selects no module that is called.
    """
    selection = Selection(layers, "drop_at")
    running: list[str] = []
    met: list[str] = []

    def intercept(
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module, path = context.module, "/".join(context.module.path)
        # A layer that a capture isolates is called again inside of its own call.
        called = context.method_name == "__call__" and path not in running
        if not called or not selection.matches(path, module):
            return next_call(*args, **kwargs)
        running.append(path)
        try:
            output = next_call(*args, **kwargs)
        finally:
            running.pop()
        met.append(path)
        return drop(module.make_rng("dropout"), output)

    with intercepted(intercept):
        yield
    if not met:
        raise ValueError(f"{selection} matches no module that is called; expected at least one")
