"""L_kernel: the filters of a kernel lose their correlation (Eq. 10)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from collab_jax.losses.checks import as_float
from collab_jax.losses.cosines import cosines, diagonal, frobenius_norm

__all__ = ["kernel_loss"]


def kernel_loss(kernel: Float[Array, "height width inputs outputs"]) -> Float[Array, ""]:
    r"""L_kernel: the correlation between the filters of one convolution (Eq. 10).

    $$L_{kernel} = \|C - diag(C)\|_F, \qquad C = \frac{1}{G} \tilde W \tilde W^\top$$

    A row of W is one output filter of G = height * width * inputs weights, normalised to mean zero
    and (population) standard deviation one.

    Args:
      kernel: (height, width, inputs, outputs), as Flax stores it.

    Returns:
      The loss of the kernel, a scalar.

    Raises:
      ValueError: if `kernel` is not of rank four or has an empty axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> kernel = jnp.array([[1.0, 2.0, 1.0], [2.0, 4.0, 0.0], [3.0, 6.0, 1.0]])
      >>> print(losses.kernel_loss(kernel.reshape(1, 1, 3, 3)).round(3))
      1.414

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 10.
    """
    kernel = as_float(kernel)
    if kernel.ndim != 4 or kernel.size == 0:
        raise ValueError(
            "kernel must be a non-empty array of shape (height, width, inputs, outputs), "
            f"got {kernel.shape}"
        )
    # A column is a filter: the kernel as stored, without a transposed copy.
    weights = kernel.reshape(-1, kernel.shape[-1])
    correlation = cosines(weights, "features", axis=0)
    return frobenius_norm(jnp.where(diagonal(correlation), 0, correlation))
