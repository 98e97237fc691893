"""The arrays of a pytree apart from all else in it."""

from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np

__all__ = ["apart", "is_array", "structure"]

_tree = cast(Any, jax.tree)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array, traced ones and NumPy's scalars included."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return cast(Any, leaf).dtype.kind not in "OSU"  # object, bytes, text
    return isinstance(leaf, jax.Array)


def apart(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """A pytree's arrays, and the function that puts as many others in their places."""
    leaves, structure = _tree.flatten(tree)
    places = [place for place, leaf in enumerate(leaves) if is_array(leaf)]
    constants = [None if is_array(leaf) else leaf for leaf in leaves]

    def restore(arrays: list[Any]) -> Any:
        full = list(constants)
        for place, array in zip(places, arrays, strict=True):
            full[place] = array
        return _tree.unflatten(structure, full)

    return [leaves[place] for place in places], restore


def structure(output: Any) -> str:
    """The kind of a pytree, such as `(f32[2,3], {'mask': None})`."""

    def short(leaf: Any) -> Any:
        if not is_array(leaf):
            return type(leaf).__name__
        return f"{leaf.dtype}{list(leaf.shape)}"

    if output is None:
        return "None"
    return str(jax.tree.map(short, output)).replace("'", "")
