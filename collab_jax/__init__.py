"""Collaborative learning inside a single network (Fang and Lin), in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

from collab_jax._version import __version__
from collab_jax.errors import moved, needs

if TYPE_CHECKING:
    from collab_jax.runs.load import load

__all__ = ["__version__", "load"]

moved.install()


def __getattr__(name: str) -> Any:
    if name == "load":
        with needs("train"):
            return importlib.import_module("collab_jax.runs.load").load
    raise AttributeError(
        moved.told(name) or f"module {__name__!r} has no attribute {name!r}", name=name
    )
