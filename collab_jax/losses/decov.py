"""DeCov: the features of a layer lose their covariance over a batch."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from collab_jax.losses.checks import as_float
from collab_jax.losses.cosines import diagonal

__all__ = ["decov_loss"]


def decov_loss(features: Float[ArrayLike, "batch features"]) -> Float[Array, ""]:
    r"""DeCov: half the squared covariances of every two features, over the examples of a batch.

    $$L_{decov} = \frac{1}{2} \big( \|C\|_F^2 - \|diag(C)\|_2^2 \big), \qquad
    C = \frac{1}{B} \sum_n (h_n - \mu)(h_n - \mu)^\top$$

    L_kernel (Eq. 10) holds down correlations between the filters of a kernel; this one covariances
    between the activations that a batch gives.

    Args:
      features: (batch, features), activations of a layer.

    Returns:
      The loss of the batch, a scalar.

    Raises:
      ValueError: if `features` is no matrix or has an empty axis.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> features = jnp.array([[1.0, 2.0], [3.0, 2.0], [2.0, 5.0], [2.0, 3.0], [7.0, 8.0]])
      >>> print(losses.decov_loss(features).round(3))
      16.0

    References:
      M. Cogswell et al., "Reducing Overfitting in Deep Networks by Decorrelating Representations",
      2016.
    """
    h = as_float(features)
    if h.ndim != 2 or h.size == 0:
        raise ValueError(
            f"features must be a non-empty matrix of shape (batch, features), got {h.shape}"
        )
    h = h - h.mean(axis=0, keepdims=True)
    covariance = jnp.tensordot(h, h, ((0,), (0,)), precision=lax.Precision.HIGHEST) / len(h)
    return jnp.sum(jnp.square(jnp.where(diagonal(covariance), 0, covariance))) / 2
