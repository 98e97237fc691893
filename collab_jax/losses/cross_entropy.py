"""Hard and soft loss: the two cross-entropies of which the collaborations are made (Eq. 1, 2)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer, ScalarLike

from collab_jax.losses.checks import as_float, as_probabilities, as_scalar, as_temperature, cast

__all__ = [
    "distillation_loss",
    "hard_loss",
    "shift",
    "soft_loss",
    "soften",
    "sum_of_weights",
    "weigh",
]


def hard_loss(
    logits: Float[ArrayLike, "*batch classes"],
    y: Integer[ArrayLike, "*batch"] | Float[ArrayLike, "*batch classes"],
    *,
    temperature: ScalarLike = 1.0,
) -> Float[Array, "*batch"]:
    r"""Cross-entropy between labels and a softened prediction, per example (Eq. 1 and 5).

    $$J_{hard}(y, z) = -\sum_k y_k \log \psi_k(z; T), \qquad \psi(z; T) = softmax(z / T)$$

    Args:
      logits: (..., classes), most often (batch, classes).
      y: integer labels (...) or probabilities (..., classes).
      temperature: T. The paper has 1 at the output (Eq. 1) and 2 at intermediate layers (Eq. 5).

    Returns:
      The loss of each example, (...); infinite where `y` expects a class of logit -inf.

    Raises:
      ValueError: if the shape of `y` does not match `logits`, or T is not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> logits = jnp.array([[2.0, 0.0], [0.0, 0.0]])
      >>> print(losses.hard_loss(logits, jnp.array([0, 1])).round(3))
      [0.127 0.693]

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 1 and 5.
    """
    logits = _as_logits(logits)
    return _cross_entropy(logits, as_probabilities(y, logits), temperature)


def soft_loss(
    logits: Float[ArrayLike, "*batch classes"],
    targets: Float[ArrayLike, "*batch classes"],
    *,
    temperature: ScalarLike = 1.0,
) -> Float[Array, "*batch"]:
    r"""Cross-entropy between soft targets and a softened prediction, per example (Eq. 2 and 6).

    $$J_{soft}(q, z) = -\sum_k q_k \log \psi_k(z; T)$$

    No gradient is stopped and no factor of T squared applied here; the losses that call it do both.

    Args:
      logits: (..., classes), most often (batch, classes).
      targets: q, probabilities of the shape of `logits`.
      temperature: T, that of the targets.

    Returns:
      The loss of each example, (...).

    Raises:
      ValueError: if `targets` and `logits` differ in shape, or T is not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> logits = jnp.array([[2.0, 0.0]])
      >>> print(losses.soft_loss(logits, jnp.array([[0.5, 0.5]]), temperature=2.0).round(3))
      [0.813]

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 2 and 6.
    """
    logits = _as_logits(logits)
    if jnp.shape(targets) != logits.shape:
        raise ValueError(
            f"targets must have the shape of logits, {logits.shape}, got {jnp.shape(targets)}"
        )
    return _cross_entropy(logits, cast(targets, logits.dtype), temperature)


def soften(logits: Array, temperature: ScalarLike, stop_gradient: bool) -> Array:
    shifted, possible = shift(logits, temperature)
    weights = jnp.where(possible, jnp.exp(shifted), 0)
    targets = weights / sum_of_weights(weights)
    return lax.stop_gradient(targets) if stop_gradient else targets


def distillation_loss(
    logits: Array, targets: Array, temperature: ScalarLike, scale_by_t2: bool
) -> Array:
    loss = soft_loss(logits, targets, temperature=temperature)
    return jnp.square(as_temperature(temperature, loss.dtype)) * loss if scale_by_t2 else loss


def weigh(weight: ScalarLike, name: str, loss: Array) -> Array:
    """A weighted part of a loss; a weight of zero leaves out an infinite one."""
    weight = as_scalar(weight, name, loss.dtype)
    return weight * jnp.where((weight == 0) & jnp.isinf(loss), 0, loss)


def _cross_entropy(logits: Array, targets: Array, temperature: ScalarLike) -> Array:
    shifted, possible = shift(logits, temperature)
    weights = jnp.where(possible, jnp.exp(shifted), 0)
    log_prediction = shifted - jnp.log(sum_of_weights(weights))
    # 0 log 0 is 0, p log 0 infinite, and neither has a gradient. Where no class is possible,
    # nothing is predicted and nothing lost.
    expected = lax.stop_gradient(targets)
    free = (expected == 0) | ~possible.any(axis=-1, keepdims=True)
    impossible = jnp.where(free, 0 * expected, -jnp.inf * expected)
    return -jnp.sum(jnp.where(possible, targets * log_prediction, impossible), axis=-1)


def shift(logits: Array, temperature: ScalarLike) -> tuple[Array, Array]:
    """Logits over T less their maximum, and which classes are possible; 0 for those that are not.

    No infinity is left for a derivative to multiply.
    """
    temperature = as_temperature(temperature, logits.dtype)
    possible = logits != -jnp.inf
    highest = lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    return jnp.where(possible, logits - highest, 0) / temperature, possible


def sum_of_weights(weights: Array) -> Array:
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return jnp.where(total == 0, 1, total)  # no class at all is possible


def _as_logits(logits: ArrayLike) -> Array:
    logits = as_float(logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(
            f"logits must have shape (..., classes) with at least one class, got {logits.shape}"
        )
    return logits
