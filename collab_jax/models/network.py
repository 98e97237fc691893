"""A convolutional network as stages that end in the hierarchical-dropout classifier."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from collab_jax.models.blocks import ConvLayer
from collab_jax.models.classifier import HierarchicalDropoutClassifier
from collab_jax.models.images import check_normalised

__all__ = ["Network"]


class Network(nn.Module):
    """Stages of layers, average pooling to 1 x 1, and a three-layer classifier.

    `layers` selects its layers for `collab_jax.linen.capture`: every `ConvLayer` but shortcuts.

    Attributes:
      num_classes: m.
      stages: factories of the stages, in depth order; a stage maps `(x, train)` to its output.
      stem_filters: filters of the 3x3 layer before the first stage; None for no such layer.
      classifier_width: units of the classifier's two hidden layers.
      dropout: the probability with which the classifier drops a hidden unit.
      dtype: dtype of the convolutions; parameters, statistics, classifier and logits stay float32.
      norm_groups: parts of a training batch that batch norm takes statistics of each by itself.
    """

    layers: ClassVar[tuple[Any, ...]] = (ConvLayer, "!**/shortcut")

    num_classes: int
    stages: tuple[Callable[..., nn.Module], ...]
    stem_filters: int | None = None
    classifier_width: int = 4096
    dropout: float = 0.5
    dtype: Any = jnp.float32
    norm_groups: int = 1

    @nn.compact
    def __call__(
        self,
        images: Float[Array | np.ndarray, "batch height width channels"],
        train: bool = False,
        masks_per_layer: int = 1,
    ) -> Float[Array, "*branches batch classes"]:
        """Predicts the logits of a batch of normalised images.

        Args:
          images: (B, H, W, C).
          train: uses batch statistics and dropout (rng `dropout`).
          masks_per_layer: K, the dropout masks of each of the classifier's two hidden layers.

        Returns:
          Logits (B, m) in inference, (K^2, B, m) in training.

        Raises:
          ValueError: if the images are integers, as raw ones are.
        """
        check_normalised(images)
        same = {"dtype": self.dtype, "norm_groups": self.norm_groups}
        x = jnp.asarray(images, self.dtype)
        if self.stem_filters is not None:
            stem = ConvLayer(self.stem_filters, **same, name="stem")
            x = stem(x, train=train)
        for number, make_stage in enumerate(self.stages, start=1):
            stage = make_stage(**same, name=f"stage{number}")
            x = stage(x, train=train)
        return HierarchicalDropoutClassifier(
            self.num_classes, self.classifier_width, self.dropout, name="classifier"
        )(x.mean(axis=(1, 2)), train=train, masks_per_layer=masks_per_layer)
