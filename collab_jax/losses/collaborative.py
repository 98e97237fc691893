"""L_out: several predictions of one network learn from one another (Eq. 2 to 4)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer, ScalarLike

from collab_jax.losses.checks import as_float, as_probabilities, as_scalar
from collab_jax.losses.cross_entropy import distillation_loss, hard_loss, soften, weigh

__all__ = ["as_branches", "collaborative_loss", "consensus"]


def consensus(
    logits: Float[ArrayLike, "branches batch *tokens classes"],
    *,
    temperature: ScalarLike,
    stop_gradient: bool = True,
) -> Float[Array, "branches batch *tokens classes"]:
    r"""Each branch's soft targets: the softened mean of the other branches' logits (Eq. 2).

    $$q^{(h)} = \psi\Big(\frac{1}{H-1} \sum_{j \ne h} z^{(j)}; T\Big)$$

    Args:
      logits: (branches, batch, ..., classes), with at least two branches; further axes, such as
        tokens, stand before the classes.
      temperature: T.
      stop_gradient: False lets gradients flow through the targets.

    Returns:
      Probabilities, of the shape of `logits`.

    Raises:
      ValueError: if `logits` is of rank below three or has fewer than two branches, or T is
        not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> logits = jnp.array([[[0.0, 0.0]], [[2 * jnp.log(3.0), 0.0]]])
      >>> print(losses.consensus(logits, temperature=2.0).round(2).tolist())
      [[[0.75, 0.25]], [[0.5, 0.5]]]

    References:
      G. Song and W. Chai, "Collaborative Learning for Deep Neural Networks", 2018.
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 2.
    """
    logits = as_branches(logits)
    # The sum of all branches minus one's own would cancel: with logits of 1e4 it loses the others.
    nothing = lax.full_like(logits[:1], 0)
    before = jnp.concatenate([nothing, lax.cumsum(logits[:-1], axis=0)])
    after = jnp.concatenate([lax.cumsum(logits[1:], axis=0, reverse=True), nothing])
    return soften((before + after) / (len(logits) - 1), temperature, stop_gradient)


def collaborative_loss(
    logits: Float[ArrayLike, "branches batch *tokens classes"],
    y: Integer[ArrayLike, "batch *tokens"] | Float[ArrayLike, "batch *tokens classes"],
    *,
    temperature: ScalarLike = 2.0,
    alpha: ScalarLike = 0.5,
    scale_by_t2: bool = False,
    stop_gradient: bool = True,
) -> Float[Array, "batch *tokens"]:
    r"""L_out: several predictions learn from the labels and from one another (Eq. 3 and 4).

    $$L_{out} = \frac{1}{H} \sum_h \alpha J_{hard}(y, z^{(h)}) +
    (1 - \alpha) J_{soft}(q^{(h)}, z^{(h)})$$

    The hard part has temperature 1, the soft part T; q is `consensus(logits)`.

    Args:
      logits: (branches, batch, ..., classes), with at least two branches; further axes, such as
        tokens, stand before the classes.
      y: integer labels (batch, ...) or probabilities (batch, ..., classes), the same for all
        branches.
      temperature: T of the soft part.
      alpha: weight of the hard part.
      scale_by_t2: multiplies the soft part by T squared, as distillation does; the paper does not.
      stop_gradient: False lets gradients flow through the targets q.

    Returns:
      The loss of each example, averaged over branches, (batch, ...).

    Raises:
      ValueError: if `logits` is of rank below three or has fewer than two branches, if the shape of
        `y` does not match, or T is not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> logits = jnp.array([[[0.0, 0.0]], [[2.0, 0.0]]])
      >>> print(losses.collaborative_loss(logits, jnp.array([0])).round(3))
      [0.582]

    References:
      G. Song and W. Chai, "Collaborative Learning for Deep Neural Networks", 2018.
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 3 and 4.
    """
    logits = as_branches(logits)
    labels = as_probabilities(y, logits[0])
    hard = hard_loss(logits, jnp.broadcast_to(labels, logits.shape))
    targets = consensus(logits, temperature=temperature, stop_gradient=stop_gradient)
    soft = distillation_loss(logits, targets, temperature, scale_by_t2)
    alpha = as_scalar(alpha, "alpha", logits.dtype)
    return jnp.mean(weigh(alpha, "alpha", hard) + weigh(1 - alpha, "alpha", soft), axis=0)


def as_branches(logits: ArrayLike) -> Array:
    logits = as_float(logits)
    if logits.ndim < 3 or len(logits) < 2 or logits.shape[-1] == 0:
        raise ValueError(
            "logits must have shape (branches, batch, ..., classes) with at least two branches and "
            f"one class, got {logits.shape}"
        )
    return logits
