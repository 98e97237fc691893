"""L_kernel: the filters of a kernel lose their correlation (Eq. 10)."""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from collab_jax.losses.checks import as_float
from collab_jax.losses.cosines import cosines, diagonal, frobenius_norm

__all__ = ["kernel_loss"]


@runtime_checkable
class HoldsArray(Protocol):
    """A variable that JAX takes for its array, such as `flax.nnx.Param`."""

    def __jax_array__(self) -> Array: ...


@runtime_checkable
class Boxed(Protocol):
    """An array in a box, such as `flax.linen.Partitioned`."""

    def unbox(self) -> Array: ...


def kernel_loss(
    kernel: Float[ArrayLike, "*window inputs filters"] | HoldsArray | Boxed,
) -> Float[Array, ""]:
    r"""L_kernel: the correlation between the filters of one layer (Eq. 10).

    $$L_{kernel} = \|C - diag(C)\|_F, \qquad C = \frac{1}{G} \tilde W \tilde W^\top$$

    A row of W is one output filter, the G weights behind one output, normalised to mean zero and
    (population) standard deviation one; G = height * width * inputs for a convolution of images.

    Args:
      kernel: (..., inputs, filters), as Flax stores the kernels of convolutions and of fully
        connected layers; an `nnx.Param` or a kernel in a box of axis names, too.

    Returns:
      The loss of the kernel, a scalar.

    Raises:
      ValueError: if `kernel` is of rank below two or has an empty axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> kernel = jnp.array([[1.0, 2.0, 1.0], [2.0, 4.0, 0.0], [3.0, 6.0, 1.0]])
      >>> print(losses.kernel_loss(kernel.reshape(1, 1, 3, 3)).round(3))
      1.414

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 10.
    """
    weights = as_float(_unwrapped(kernel))
    if weights.ndim < 2 or weights.size == 0:
        raise ValueError(
            f"kernel must be a non-empty array of shape (..., inputs, filters), got {weights.shape}"
        )
    # A column is a filter: the kernel as stored, without a transposed copy.
    weights = weights.reshape(-1, weights.shape[-1])
    correlation = cosines(weights, "features", axis=0)
    return frobenius_norm(jnp.where(diagonal(correlation), 0, correlation))


def _unwrapped(kernel: ArrayLike | HoldsArray | Boxed) -> ArrayLike:
    if isinstance(kernel, Boxed):
        return kernel.unbox()
    if isinstance(kernel, HoldsArray) and not isinstance(kernel, Array):
        return kernel.__jax_array__()
    return kernel
