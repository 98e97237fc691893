"""CIFAR's pickled batches, read without running what a pickle may ask for.

A pickle names functions for its reader to call. The batches need three, for a NumPy array of
bytes; here these are stand-ins that keep their arguments, and any other name is an error.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

__all__ = ["read_pickle"]


def read_pickle(data: bytes) -> dict[str, Any]:
    """A batch or a table of names: lists, numbers, text and arrays of bytes by key.

    Raises:
        ValueError: the pickle names anything else, or its array is none of bytes.
        Exception: whatever damaged bytes make `pickle` raise.
    """
    found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}, expected a table")
    return {_text(key): _plain(value) for key, value in found.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, list):
        return [_text(item) if isinstance(item, bytes) else item for item in value]
    return value


class _Dtype:
    """Stands in for `numpy.dtype`."""

    def __init__(self, code: Any = None, *_: Any):
        self.code = _text(code)

    def __setstate__(self, state: Any) -> None:
        pass  # Byte order and the like, which bytes have none of.


class _Array:
    """Stands in for `numpy.ndarray`."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """uint8, of the shape that the pickle tells."""
        _, shape, dtype, fortran_order, data = self.state
        if not isinstance(dtype, _Dtype) or dtype.code != "u1" or not isinstance(data, bytes):
            raise ValueError("an array of other than bytes")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran_order else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


_STAND_INS = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise ValueError(f"it asks for {module}.{name}, which such a file has no use for")
        return _STAND_INS[module, name]
