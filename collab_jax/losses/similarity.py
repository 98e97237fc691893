"""S: how alike the examples of a batch are (Eq. 8)."""

from typing import Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from collab_jax.losses.checks import as_float
from collab_jax.losses.cosines import Center, cosines

__all__ = ["Examples", "Representation", "as_vectors", "similarities", "similarity_matrix"]

Representation: TypeAlias = Literal["auto", "std", "flatten"]
Examples: TypeAlias = (
    Float[ArrayLike, "batch _ _ _"] | Float[ArrayLike, "batch _ _"] | Float[ArrayLike, "batch _"]
)


def similarity_matrix(
    x: Examples,
    *,
    representation: Representation = "auto",
    center: Center = "features",
) -> Float[Array, "batch batch"]:
    r"""S: cosine similarity of every two examples of a batch (Eq. 8).

    $$s_{ij} = \frac{\tilde z_i^\top \tilde z_j}{\|\tilde z_i\|_2 \|\tilde z_j\|_2}$$

    A map is first reduced to the (population) standard deviation of each channel over its pixels;
    a sequence is a map of one row. A vector that is constant before centring has no direction: its
    row and column are zero.

    Args:
      x: maps (batch, height, width, channels), sequences (batch, length, channels) or vectors
        (batch, features).
      representation: of a map. "std" takes the deviation of each channel, "flatten" all values,
        "auto" the deviation where there are several channels and several pixels, and otherwise all
        values: after the deviation one grey channel or a single pixel has nothing to compare.
      center: which mean is subtracted from the vectors: "features" that of each vector's own
        entries, "batch" that of the batch, "none" nothing.

    Returns:
      Similarities within [-1, 1] up to rounding, (batch, batch).

    Raises:
      ValueError: if `x` is neither maps, sequences nor vectors, has an empty axis, or an option is
        unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> x = jnp.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0], [5.0, 5.0, 5.0]])
      >>> print(losses.similarity_matrix(x).round(3))
      [[ 1.  1. -1.  0.]
       [ 1.  1. -1.  0.]
       [-1. -1.  1.  0.]
       [ 0.  0.  0.  0.]]

    References:
      A. Nøkland and L. H. Eidnes, "Training Neural Networks with Local Error Signals", 2019.
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 8.
    """
    return similarities(x, "x", representation, center)


def similarities(x: ArrayLike, name: str, representation: Representation, center: Center) -> Array:
    if representation not in get_args(Representation):
        raise ValueError(
            f"representation must be one of {get_args(Representation)}, got {representation!r}"
        )
    if center not in get_args(Center):
        raise ValueError(f"center must be one of {get_args(Center)}, got {center!r}")
    return cosines(as_vectors(x, name, representation, center), center, axis=1)


def as_vectors(x: ArrayLike, name: str, representation: Representation, center: Center) -> Array:
    """The vectors of which S takes cosines, (batch, features); vectors stay as they are."""
    x = as_float(x)
    if x.ndim not in (2, 3, 4) or x.size == 0:
        raise ValueError(
            f"{name} must be non-empty maps (batch, height, width, channels), sequences (batch, "
            f"length, channels) or vectors (batch, features), got shape {x.shape}"
        )
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim == 4:
        _, height, width, channels = x.shape
        several = channels > 1 and height * width > 1
        deviation = several if representation == "auto" else representation == "std"
        relative = center == "features"
        x = _spatial_deviation(x, relative) if deviation else x.reshape(len(x), -1)
    return x


def _spatial_deviation(maps: Array, relative: bool) -> Array:
    """Standard deviation of each channel over its pixels, with gradient zero where it is zero.

    If `relative`, less a constant of each example that is left out of the gradient too: the
    differences between channels then keep the digits that rounding a deviation takes from them.
    """

    @jax.custom_jvp
    def deviation(maps: Array) -> Array:
        pixels = _centred_pixels(maps)
        own = jnp.sqrt(jnp.mean(jnp.square(pixels), axis=(1, 2)))
        if not relative:
            return own
        # With a = own and b = typical, a - b = (a^2 - b^2) / (a + b) = mean(p^2 - b^2) / (a + b).
        typical = jnp.mean(own, axis=1, keepdims=True)
        level = typical[:, None, None, :]
        excess = jnp.mean((pixels - level) * (pixels + level), axis=(1, 2))
        return excess / jnp.where(typical == 0, 1, own + typical)

    @deviation.defjvp
    def deviation_jvp(primals: tuple[Array], tangents: tuple[ArrayLike]) -> tuple[Array, Array]:
        (maps,), (tangent,) = primals, tangents
        size = _spatial_deviation(maps, relative=False)
        slope = jnp.mean(_centred_pixels(maps) * tangent, axis=(1, 2))
        return deviation(maps), slope / jnp.where(size == 0, 1, size)

    return deviation(maps)


def _centred_pixels(maps: Array) -> Array:
    maps = maps - maps[:, :1, :1, :]
    return maps - jnp.mean(maps, axis=(1, 2), keepdims=True)
