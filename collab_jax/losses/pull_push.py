"""L_pull-push: features gather by label and lose the likeness of their images (Eq. 9)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Integer, Real, ScalarLike

from collab_jax.losses.checks import as_label_vectors, cast
from collab_jax.losses.cosines import Center, frobenius_norm
from collab_jax.losses.similarity import Examples, Representation, similarities

__all__ = ["pull_push_loss"]


def pull_push_loss(
    features: Sequence[Examples],
    inputs: Examples,
    y: Integer[ArrayLike, "batch"] | Float[ArrayLike, "batch classes"],
    *,
    pull: Real[ArrayLike, "layers"] | Sequence[ScalarLike],
    push: Real[ArrayLike, "layers"] | Sequence[ScalarLike],
    num_classes: int | None = None,
    representation: Representation = "auto",
    input_representation: Representation | None = None,
    center: Center = "features",
    per_example: bool = False,
) -> Float[Array, "layers"]:
    r"""L_pull-push: pulls features' similarities to the labels' and pushes them off the inputs'.

    $$L_{pull-push}^{(i)} = a_i \|S(g_i(h_i)) - S(y)\|_F - b_i \|S(g_i(h_i)) - S(x)\|_F$$

    The norms are not squared. As printed they run over B x B entries, so that the loss and its
    gradient grow in proportion to the batch's size B: twice the examples pull twice as hard
    beside a cross-entropy that is a mean. With `per_example` a weight carries over to another
    batch size. No gradient is stopped: inputs and probabilities that depend on parameters move
    them.

    Args:
      features: for each layer g_i(h_i), the features after that layer's projection, as maps
        (batch, h, w, c), sequences (batch, l, c) or vectors (batch, d); sizes may differ between
        layers.
      inputs: x, the images (batch, height, width, channels), or else sequences or vectors.
      y: probabilities (batch, classes), or integer labels (batch) with `num_classes`.
      pull: a, one weight a layer; the paper's rise linearly with depth, from 0 to 1.
      push: b, one weight a layer; the paper's fall linearly with depth, from 1 to 0.
      num_classes: number of classes, needed for integer labels.
      representation: of feature maps, as in `similarity_matrix`.
      input_representation: of the inputs; None for that of the features. Nøkland and Eidnes
        flatten images of up to three channels: "flatten".
      center: as in `similarity_matrix`.
      per_example: divides both norms by the batch's size B, so that each is the root mean square
        of its B x B entries.

    Returns:
      The loss of each layer, (layers).

    Raises:
      ValueError: if there is no layer, if `features`, `pull` and `push` differ in length, if
        batches differ, or if `num_classes` is missing for integer labels or contradicts `y`.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> x = jnp.array([[1.0, 2.0, 4.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
      >>> y = jnp.array([0, 1, 1])
      >>> weights = dict(pull=[0.0, 1.0], push=[1.0, 0.0])
      >>> print(losses.pull_push_loss([x, x], x, y, **weights, num_classes=3).round(2))
      [0.   1.63]

    References:
      Fang and Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 9.
    """
    layers = len(features)
    if layers == 0:
        raise ValueError("features must hold at least one layer, got an empty sequence")
    batch = jnp.shape(inputs)[:1]
    for index, feature in enumerate(features):
        if jnp.shape(feature)[:1] != batch:
            raise ValueError(
                f"features[{index}] must have the batch of inputs, {jnp.shape(inputs)}, first, "
                f"got shape {jnp.shape(feature)}"
            )
    to_input = similarities(inputs, "inputs", input_representation or representation, center)
    labels = as_label_vectors(y, num_classes, batch, to_input.dtype)
    to_label = similarities(labels, "y", "flatten", center)

    own = [
        similarities(feature, f"features[{index}]", representation, center)
        for index, feature in enumerate(features)
    ]
    label_distance = jnp.stack([frobenius_norm(s - cast(to_label, s.dtype)) for s in own])
    input_distance = jnp.stack([frobenius_norm(s - cast(to_input, s.dtype)) for s in own])
    if per_example:
        label_distance, input_distance = label_distance / batch[0], input_distance / batch[0]
    pull = _as_layer_weights(pull, "pull", layers, label_distance.dtype)
    push = _as_layer_weights(push, "push", layers, input_distance.dtype)
    return pull * label_distance - push * input_distance


def _as_layer_weights(
    weights: ArrayLike | Sequence[ScalarLike], name: str, layers: int, dtype: DTypeLike
) -> Array:
    shape = (len(weights),) if isinstance(weights, Sequence) else jnp.shape(weights)
    if shape != (layers,):
        raise ValueError(
            f"{name} must have shape ({layers},), one weight a layer of features, got {shape}"
        )
    return cast(jnp.stack(weights) if isinstance(weights, Sequence) else weights, dtype)
