"""Cosines between vectors with one product a derivative, finite where a vector is constant."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike

from collab_jax.losses.checks import cast

__all__ = ["Center", "cosines", "diagonal", "frobenius_norm"]

Center: TypeAlias = Literal["features", "batch", "none"]

# A vector with entries no further apart is constant. Derivatives are inverse to the spread, once
# for each order: first and second ones then stay within float32.
_SMALLEST_SPREAD = 1e-18


def cosines(vectors: Array, center: Center, axis: int) -> Array:
    """Cosines between the vectors that run along `axis` of a matrix."""
    if center != "none":
        # Taking one entry off first makes constant vectors exactly zero, however their mean is
        # rounded. It cancels in the centring, so that no gradient need pass through it.
        along = axis if center == "features" else 1 - axis
        vectors = vectors - lax.stop_gradient(lax.slice_in_dim(vectors, 0, 1, axis=along))
        if center == "batch":
            vectors = _less_mean(vectors, along)
    # Cosines do not depend on lengths, so that this scale is a constant to every derivative. It
    # keeps squares from underflow and overflow: a squared length is then zero or at least 1/2.
    largest = jnp.max(jnp.abs(lax.stop_gradient(vectors)), axis=axis, keepdims=True)
    constant = largest <= _SMALLEST_SPREAD
    vectors = vectors * jnp.where(constant, 0, 1 / jnp.where(constant, 1, largest))

    products = _gram(vectors, axis, centred=center == "features")
    own = diagonal(products)
    squared = jnp.sum(jnp.where(own, products, 0), axis=1)
    constant = constant.reshape(-1)
    inverse = jnp.where(constant, 0, 1 / jnp.sqrt(jnp.where(constant, 1, squared)))
    matrix = products * inverse[:, None] * inverse[None, :]
    itself = cast(~constant, matrix.dtype)
    return jnp.where(own, itself[:, None], matrix)


def _gram(vectors: Array, axis: int, centred: bool) -> Array:
    """Inner products of the vectors that run along `axis`, each less its own mean if `centred`."""

    def products(first: ArrayLike, second: Array) -> Array:
        axes = ((axis,), (axis,))
        return jnp.tensordot(first, second, axes, precision=lax.Precision.HIGHEST)

    @jax.custom_jvp
    def gram(vectors: Array) -> Array:
        vectors = _less_mean(vectors, axis) if centred else vectors
        return products(vectors, vectors)

    @gram.defjvp
    def gram_jvp(primals: tuple[Array], tangents: tuple[ArrayLike]) -> tuple[Array, Array]:
        # The matrix is symmetric: one product gives its tangent and, transposed, its gradient.
        # A tangent's own mean is orthogonal to centred vectors and need not be taken off.
        (vectors,), (tangent,) = primals, tangents
        half = products(tangent, _less_mean(vectors, axis) if centred else vectors)
        return gram(vectors), half + half.T

    return gram(vectors)


def _less_mean(vectors: Array, axis: int) -> Array:
    return vectors - jnp.mean(vectors, axis=axis, keepdims=True)


def diagonal(matrix: Array) -> Array:
    return jnp.identity(len(matrix), dtype=bool)


def frobenius_norm(matrix: Array) -> Array:
    """The norm, with gradient zero at the zero matrix."""
    squared = jnp.sum(jnp.square(matrix))
    zero = squared == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squared)))
