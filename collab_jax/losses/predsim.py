"""Similarity matching: features gather by label, the local error signal beside a classifier's."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer

from collab_jax.losses.checks import as_label_vectors, cast
from collab_jax.losses.cosines import Center
from collab_jax.losses.similarity import Examples, Representation, similarities

__all__ = ["similarity_loss"]


def similarity_loss(
    features: Sequence[Examples],
    y: Integer[ArrayLike, "batch"] | Float[ArrayLike, "batch classes"],
    *,
    num_classes: int | None = None,
    representation: Representation = "auto",
    center: Center = "features",
) -> Float[Array, "layers"]:
    r"""Similarity matching: the distance of features' similarities from the labels'.

    $$L_{sim}^{(i)} = \frac{1}{B^2} \|S(g_i(h_i)) - S(y)\|_F^2$$

    The pull of L_pull-push (Eq. 9) with the norm squared and the same weight at every depth, and no
    push. The paper prints the sum over B x B entries, its authors train with their mean, as here.

    Args:
      features: for each layer g_i(h_i), the features after that layer's projection, as maps
        (batch, h, w, c), sequences (batch, l, c) or vectors (batch, d); sizes may differ between
        layers.
      y: probabilities (batch, classes), or integer labels (batch) with `num_classes`.
      num_classes: number of classes, needed for integer labels.
      representation: of feature maps, as in `similarity_matrix`.
      center: as in `similarity_matrix`.

    Returns:
      The loss of each layer, (layers).

    Raises:
      ValueError: if there is no layer, if batches differ, or if `num_classes` is missing for
        integer labels or contradicts `y`.

    Example:
      >>> import jax.numpy as jnp
      >>> from collab_jax import losses
      >>> x = jnp.array([[1.0, 2.0, 4.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
      >>> print(losses.similarity_loss([x], jnp.array([0, 1, 1]), num_classes=3).round(1))
      [0.3]

    References:
      A. Nøkland and L. H. Eidnes, "Training Neural Networks with Local Error Signals", 2019.
    """
    if len(features) == 0:
        raise ValueError("features must hold at least one layer, got an empty sequence")
    batch = jnp.shape(features[0])[:1]
    for index, feature in enumerate(features):
        if jnp.shape(feature)[:1] != batch:
            raise ValueError(
                f"features[{index}] must have the batch of features[0], "
                f"{jnp.shape(features[0])}, first, got shape {jnp.shape(feature)}"
            )
    own = [
        similarities(feature, f"features[{index}]", representation, center)
        for index, feature in enumerate(features)
    ]
    labels = as_label_vectors(y, num_classes, batch, own[0].dtype)
    to_label = similarities(labels, "y", "flatten", center)
    return jnp.stack([jnp.mean(jnp.square(s - cast(to_label, s.dtype))) for s in own])
