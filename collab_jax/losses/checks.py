"""Arguments of the losses, checked and brought to one dtype."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, ScalarLike

__all__ = [
    "as_float",
    "as_label_vectors",
    "as_probabilities",
    "as_scalar",
    "as_temperature",
    "cast",
    "one_hot",
]


def cast(x: ArrayLike, dtype: DTypeLike) -> Array:
    return lax.convert_element_type(x, dtype)


def as_float(x: ArrayLike) -> Array:
    return cast(x, jnp.promote_types(jnp.result_type(x), jnp.float32))


def as_scalar(value: ScalarLike, name: str, dtype: DTypeLike) -> Array:
    if jnp.shape(value) != ():
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
    return cast(value, dtype)


def as_temperature(temperature: ScalarLike, dtype: DTypeLike) -> Array:
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return as_scalar(temperature, "temperature", dtype)


def as_probabilities(y: ArrayLike, logits: Array) -> Array:
    """Labels for `logits` as probabilities of the same shape and dtype."""
    dtype, shape = jnp.result_type(y), jnp.shape(y)
    if jnp.issubdtype(dtype, jnp.integer) and shape == logits.shape[:-1]:
        return one_hot(y, logits.shape[-1], logits.dtype)
    if jnp.issubdtype(dtype, jnp.floating) and shape == logits.shape:
        return cast(y, logits.dtype)
    raise ValueError(
        f"y must be integer labels of shape {logits.shape[:-1]} or probabilities of shape "
        f"{logits.shape}, got {dtype} of shape {shape}"
    )


def as_label_vectors(
    y: ArrayLike, num_classes: int | None, batch: tuple[int, ...], result_dtype: DTypeLike
) -> Array:
    """Labels as probabilities (batch, classes)."""
    dtype, shape = jnp.result_type(y), jnp.shape(y)
    if jnp.issubdtype(dtype, jnp.integer) and shape == batch:
        if num_classes is None or num_classes < 1:
            raise ValueError(
                f"num_classes must be given, at least 1, for integer y of shape {shape}, "
                f"got {num_classes}"
            )
        return one_hot(y, num_classes, result_dtype)
    if jnp.issubdtype(dtype, jnp.floating) and len(shape) == 2 and shape[:1] == batch:
        if num_classes not in (None, shape[1]):
            raise ValueError(
                f"num_classes must be None or {shape[1]} for probabilities y of shape {shape}, "
                f"got {num_classes}"
            )
        return cast(y, result_dtype)
    raise ValueError(
        f"y must be integer labels of shape {batch} or probabilities of shape "
        f"({', '.join(map(str, batch))}, classes), got {dtype} of shape {shape}"
    )


def one_hot(labels: ArrayLike, classes: int, dtype: DTypeLike) -> Array:
    labels = cast(labels, jnp.result_type(labels))
    known = (labels >= 0) & (labels < classes)
    return jnp.where(known[..., None], jax.nn.one_hot(labels, classes, dtype=dtype), jnp.nan)
