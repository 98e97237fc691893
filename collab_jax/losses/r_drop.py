"""R-Drop: several predictions of one network are held together by their divergence."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, ScalarLike

from collab_jax.losses.collaborative import as_branches
from collab_jax.losses.cross_entropy import shift, sum_of_weights

__all__ = ["r_drop_loss"]


def r_drop_loss(
    logits: Float[ArrayLike, "branches batch *tokens classes"], *, temperature: ScalarLike = 1.0
) -> Float[Array, "batch *tokens"]:
    r"""The symmetric Kullback-Leibler divergence between predictions, over all pairs of branches.

    $$L_{r-drop} = \frac{2}{H (H-1)} \sum_{i<j} \frac{1}{2}
    \big( D(p^{(i)} \| p^{(j)}) + D(p^{(j)} \| p^{(i)}) \big), \qquad p^{(h)} = \psi(z^{(h)}; T)$$

    With two branches it is R-Drop's. It is then the soft part of L_out (Eq. 2) at the same T less
    the mean entropy of the predictions; its gradient is another, as long as L_out takes its targets
    for constants: here both sides of a divergence move.

    Args:
      logits: (branches, batch, ..., classes), with at least two branches; further axes, such as
        tokens, stand before the classes.
      temperature: T; R-Drop has 1.

    Returns:
      The loss of each example, (batch, ...); infinite where a class of logit -inf in one branch is
      possible in another.

    Raises:
      ValueError: if `logits` is of rank below three or has fewer than two branches, or T is not a
        positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> logits = jnp.array([[[0.0, 0.0]], [[jnp.log(3.0), 0.0]]])
      >>> print(losses.r_drop_loss(logits).round(2))
      [0.14]

    References:
      X. Liang et al., "R-Drop: Regularized Dropout for Neural Networks", 2021, Sec. 2.
    """
    logits = as_branches(logits)
    shifted, possible = shift(logits, temperature)
    weights = jnp.where(possible, jnp.exp(shifted), 0)
    total = sum_of_weights(weights)
    predictions, log_predictions = weights / total, shifted - jnp.log(total)
    # The sum over pairs of (p_i - p_j)(log p_i - log p_j) is H times that over branches of the
    # distances to their means. Small divergences do not cancel in it.
    product = _less_mean(predictions) * _less_mean(log_predictions)
    loss = jnp.where(possible.all(axis=0), product.sum(axis=0) / (len(logits) - 1), 0).sum(axis=-1)
    told_apart = (possible.any(axis=0) & ~possible.all(axis=0)).any(axis=-1)
    nothing = ~possible.any(axis=-1).all(axis=0)
    return jnp.where(nothing, 0, jnp.where(told_apart, jnp.inf, loss))


def _less_mean(branches: Array) -> Array:
    return branches - branches.mean(axis=0, keepdims=True)
