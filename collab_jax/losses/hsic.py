"""The HSIC bottleneck: features depend on their labels and not on their inputs."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jax.scipy import linalg
from jaxtyping import Array, ArrayLike, Float, Integer, ScalarLike

from collab_jax.losses.checks import as_float, as_label_vectors, as_scalar, cast
from collab_jax.losses.cosines import diagonal

__all__ = ["hsic_loss"]

_EPSILON = 1e-5


def hsic_loss(
    features: Sequence[Float[ArrayLike, "batch ..."]],
    inputs: Float[ArrayLike, "batch ..."],
    y: Integer[ArrayLike, "batch"] | Float[ArrayLike, "batch classes"],
    *,
    beta: ScalarLike = 500.0,
    sigma: ScalarLike = 5.0,
    num_classes: int | None = None,
) -> Float[Array, "layers"]:
    r"""The HSIC bottleneck: features become independent of the inputs and dependent on the labels.

    $$L_{hsic}^{(i)} = nHSIC(h_i, x) - \beta\, nHSIC(h_i, y), \qquad
    nHSIC(u, v) = tr(\tilde K_u \tilde K_v), \qquad
    \tilde K = \bar K (\bar K + \epsilon B I)^{-1}$$

    The kernel is Gaussian, of squared distance over 2 sigma^2 d in d dimensions, and centred over
    the batch; epsilon is 1e-5. Push and pull are those of L_pull-push (Eq. 9) in another measure.

    Args:
      features: for each layer h_i, (batch, ...); sizes may differ between layers.
      inputs: x, (batch, ...).
      y: probabilities (batch, classes), or integer labels (batch) with `num_classes`.
      beta: weight of the dependence on the labels.
      sigma: width of the kernel, of each dimension.
      num_classes: number of classes, needed for integer labels.

    Returns:
      The loss of each layer, (layers).

    Raises:
      ValueError: if there is no layer, if batches differ, an array holds nothing, or if
        `num_classes` is missing for integer labels or contradicts `y`.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> x = jnp.array([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0]])
      >>> loss = losses.hsic_loss([x], x, jnp.array([0, 1, 1]), beta=3.0, num_classes=2)
      >>> print(loss.round(1))
      [-1.]

    References:
      W.-D. K. Ma, J. P. Lewis and W. B. Kleijn, "The HSIC Bottleneck: Deep Learning without
      Back-Propagation", 2020.
    """
    if len(features) == 0:
        raise ValueError("features must hold at least one layer, got an empty sequence")
    batch = jnp.shape(inputs)[:1]
    named = {f"features[{index}]": feature for index, feature in enumerate(features)}
    for name, feature in {"inputs": inputs, **named}.items():
        if jnp.shape(feature)[:1] != batch or not batch or jnp.size(feature) == 0:
            raise ValueError(
                f"{name} must be a non-empty array with the batch of inputs, {jnp.shape(inputs)}, "
                f"first, got shape {jnp.shape(feature)}"
            )
    of_inputs = _kernel(inputs, sigma)
    labels = as_label_vectors(y, num_classes, batch, of_inputs.dtype)
    kernels = [of_inputs, _kernel(labels, sigma), *(_kernel(h, sigma) for h in features)]
    dtype = jnp.result_type(*kernels)
    to_inputs, to_labels, *own = _normalised(jnp.stack([cast(k, dtype) for k in kernels]))
    # The matrices are symmetric: the trace of a product is the sum of the entries' products.
    wanted = to_inputs - as_scalar(beta, "beta", dtype) * to_labels
    return jnp.stack([jnp.sum(operator * wanted) for operator in own])


def _kernel(x: ArrayLike, sigma: ScalarLike) -> Array:
    """The centred kernel matrix of a batch's examples, (batch, batch)."""
    x = as_float(x)
    x = x.reshape(len(x), -1)
    x = x - x.mean(axis=0, keepdims=True)
    products = jnp.tensordot(x, x, ((1,), (1,)), precision=lax.Precision.HIGHEST)
    squared = jnp.sum(jnp.where(diagonal(products), products, 0), axis=1)
    distances = squared[:, None] + squared[None, :] - 2 * products
    width = 2 * jnp.square(as_scalar(sigma, "sigma", x.dtype)) * x.shape[1]
    # Less one, which centring removes: small distances keep their digits.
    kernel = jnp.expm1(-distances / width)
    kernel = kernel - kernel.mean(axis=0, keepdims=True)
    return kernel - kernel.mean(axis=1, keepdims=True)


def _normalised(kernels: Array) -> Array:
    batch = kernels.shape[-1]
    ridge = _EPSILON * batch * jnp.identity(batch, kernels.dtype)
    return linalg.cho_solve(linalg.cho_factor(kernels + ridge[None]), kernels)
