"""L_mid: each layer's local prediction learns from those of all deeper layers (Eq. 5 to 7)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Integer, ScalarLike

from collab_jax.losses.checks import as_float, as_probabilities, cast
from collab_jax.losses.cross_entropy import distillation_loss, hard_loss, soften, weigh

__all__ = ["intermediate_loss"]


def intermediate_loss(
    local_logits: Float[ArrayLike, "layers batch *tokens classes"]
    | Sequence[Float[ArrayLike, "batch *tokens classes"]],
    y: Integer[ArrayLike, "batch *tokens"] | Float[ArrayLike, "batch *tokens classes"],
    *,
    temperature: ScalarLike = 2.0,
    alpha: ScalarLike = 0.05,
    beta: ScalarLike = 0.05,
    output_logits: Float[ArrayLike, "batch *tokens classes"] | None = None,
    scale_by_t2: bool = False,
    stop_gradient: bool = True,
) -> Float[Array, "layers batch *tokens"]:
    r"""L_mid: each layer's local prediction learns from the labels and from all deeper layers.

    $$L_{mid}^{(i)} = \alpha J_{hard}(y, z^{(i)}; T) + \beta J_{soft}(q^{(i)}, z^{(i)}; T), \qquad
    q^{(i)} = \psi\Big(\frac{1}{N-i} \sum_{j>i} z^{(j)}; T\Big)$$

    A layer's own logits are left out of its target: Eq. 6 divides by N - i, the number of deeper
    layers. The last layer has no soft part, unless `output_logits` stands above it. Both parts
    have temperature T, as in Eq. 5 and 6.

    Args:
      local_logits: (layers, batch, ..., classes) or a sequence of (batch, ..., classes), in depth
        order; further axes, such as tokens, stand before the classes.
      y: integer labels (batch, ...) or probabilities (batch, ..., classes).
      temperature: T of both parts.
      alpha: weight of the hard part.
      beta: weight of the soft part.
      output_logits: (batch, ..., classes), the network's own prediction as one more, highest, view:
        it enters every layer's target and gives the last layer its soft part.
      scale_by_t2: multiplies the soft part by T squared, as distillation does; the paper does not.
      stop_gradient: False lets gradients flow through the targets q.

    Returns:
      The loss of each layer and example, (layers, batch, ...); the paper's total sums over layers.

    Raises:
      ValueError: if there is no layer, if layers, `output_logits` and `y` do not match in shape, or
        T is not a positive scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> local_logits = [jnp.array([[0.0, 0.0]]), jnp.array([[2.0, 0.0]])]
      >>> print(losses.intermediate_loss(local_logits, jnp.array([0])).round(4))
      [[0.0693]
       [0.0157]]

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 5 to 7.
    """
    layers = _as_layers(local_logits)
    labels = as_probabilities(y, layers[0])
    hard = hard_loss(layers, jnp.broadcast_to(labels, layers.shape), temperature=temperature)
    loss = weigh(alpha, "alpha", hard)

    views = layers
    if output_logits is not None:
        if jnp.shape(output_logits) != layers.shape[1:]:
            raise ValueError(
                f"output_logits must have the shape of one layer's logits, {layers.shape[1:]}, "
                f"got {jnp.shape(output_logits)}"
            )
        views = jnp.concatenate([layers, cast(output_logits, layers.dtype)[None]])
    targeted = len(views) - 1
    if targeted == 0:
        return loss
    deeper = jnp.flip(1 + lax.iota(layers.dtype, targeted))
    deeper = deeper.reshape(-1, *[1] * (views.ndim - 1))
    mean = lax.cumsum(views[1:], axis=0, reverse=True) / deeper
    targets = soften(mean, temperature, stop_gradient)
    soft = distillation_loss(layers[:targeted], targets, temperature, scale_by_t2)
    without_target = len(layers) - targeted
    soft = jnp.concatenate([soft, lax.full_like(loss[:without_target], 0)])
    return loss + weigh(beta, "beta", soft)


def _as_layers(local_logits: ArrayLike | Sequence[ArrayLike]) -> Array:
    if isinstance(local_logits, Sequence):
        if not local_logits:
            raise ValueError("local_logits must hold at least one layer, got an empty sequence")
        for index, logits in enumerate(local_logits):
            if jnp.shape(logits) != jnp.shape(local_logits[0]):
                raise ValueError(
                    f"local_logits[{index}] must have the shape of local_logits[0], "
                    f"{jnp.shape(local_logits[0])}, got {jnp.shape(logits)}"
                )
        local_logits = jnp.stack(local_logits)
    layers = as_float(local_logits)
    if layers.ndim < 3 or len(layers) == 0 or layers.shape[-1] == 0:
        raise ValueError(
            "local_logits must have shape (layers, batch, ..., classes), or be a sequence of "
            f"(batch, ..., classes), with at least one layer and one class, got {layers.shape}"
        )
    return layers
