"""Interceptors of a model's calls, which what reads its layers from inside is no part of."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import flax.linen as nn

__all__ = ["intercepted", "reading"]

_READING = ContextVar("reading", default=False)


def intercepted(interceptor: Callable[..., Any]) -> AbstractContextManager[None]:
    """`flax.linen.intercept_methods` for all calls of modules but those within `reading`."""

    def of_model(next_call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if _READING.get():
            return next_call(*args, **kwargs)
        return interceptor(next_call, args, kwargs, context)

    return nn.intercept_methods(of_model)


@contextmanager
def reading() -> Iterator[None]:
    """Modules that are called in here read the model and are none of it."""
    token = _READING.set(True)
    try:
        yield
    finally:
        _READING.reset(token)
