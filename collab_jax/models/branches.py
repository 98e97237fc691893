"""Several classifiers on one network: copies of its later stages, which are trained with it."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from collab_jax.models.blocks import ConvLayer
from collab_jax.models.classifier import HierarchicalDropoutClassifier
from collab_jax.models.images import check_normalised
from collab_jax.models.network import Network

__all__ = [
    "BRANCH",
    "BranchedNetwork",
    "branched",
    "path_name",
    "rescale_gradient",
    "split_branches",
]

BRANCH = "branch"
"""What the names of the parts begin with that training alone has."""


@jax.custom_jvp
def rescale_gradient(x: Array, branches: ScalarLike) -> Array:
    """The identity, whose derivative is 1 / branches (back-propagation rescaling).

    Args:
      x: an array that several branches take as their input.
      branches: how many.

    Returns:
      x. The gradient that reaches it is the mean of the branches' gradients, not their sum.

    References:
      G. Song and W. Chai, "Collaborative Learning for Deep Neural Networks", 2018.
    """
    del branches
    return x


@rescale_gradient.defjvp
def _rescale_gradient_jvp(
    primals: tuple[Array, ScalarLike], tangents: tuple[Array, Any]
) -> tuple[Array, Array]:
    x, branches = primals
    return x, tangents[0] / branches


class BranchedNetwork(Network):
    """A network for training whose paths split, each time into copies of all that follows.

    The first path is the network itself, with its names. The other paths' parts are named
    `branchP_PART`; they have no use in inference, where only the first path runs.

    Attributes:
      splits: paths that every path splits into before each stage: one number for each, 1 where
        nothing splits. Their product is the number of heads.
      rescale: whether the gradient is divided by the number of paths at each split.
    """

    splits: tuple[int, ...] = ()
    rescale: bool = True

    @nn.compact
    def __call__(
        self,
        images: Float[Array | np.ndarray, "batch height width channels"],
        train: bool = False,
        masks_per_layer: int = 1,
    ) -> Float[Array, "*heads batch classes"]:
        """Predicts logits, as `Network` does: (B, m) in inference, (H, B, m) in training.

        Raises:
          ValueError: if there is not one entry of `splits` for each stage.
        """
        if len(self.splits) != len(self.stages):
            raise ValueError(
                f"splits: {self.splits} given; expected {len(self.stages)} numbers, one for each "
                "stage"
            )
        check_normalised(images)
        same = {"dtype": self.dtype, "norm_groups": self.norm_groups}
        x = jnp.asarray(images, self.dtype)
        if self.stem_filters is not None:
            x = ConvLayer(self.stem_filters, **same, name="stem")(x, train=train)
        paths = [x]
        parts = zip(self.stages, self.splits, strict=True)
        for number, (make_stage, branches) in enumerate(parts, start=1):
            if branches > 1 and (train or self.is_initializing()):
                paths = self._split(paths, branches)
            names = [path_name(f"stage{number}", path) for path in range(len(paths))]
            paths = [
                make_stage(**same, name=name)(x, train=train)
                for name, x in zip(names, paths, strict=True)
            ]
        logits = []
        for path, x in enumerate(paths):
            classifier = HierarchicalDropoutClassifier(
                self.num_classes,
                self.classifier_width,
                self.dropout,
                name=path_name("classifier", path),
            )
            features = x.mean(axis=(1, 2))
            logits.append(classifier(features, train=train, masks_per_layer=masks_per_layer))
        return jnp.concatenate(logits) if train else logits[0]

    def _split(self, paths: list[Array], branches: int) -> list[Array]:
        # The first copy of the first path must stay first: it is the network that remains.
        if self.rescale:
            paths = [rescale_gradient(x, branches) for x in paths]
        return [x for x in paths for _ in range(branches)]


def branched(
    network: Network, *, split_stages: tuple[int, ...], branches: int, rescale: bool
) -> BranchedNetwork:
    """The training form of a network with several heads.

    Args:
      network: the network that remains after training.
      split_stages: stages, counted from 0, before which every path splits.
      branches: paths that a path splits into.
      rescale: whether the gradient is divided by the number of paths at each split.

    Returns:
      The module; its parameters hold those of `network` under the same names.
    """
    stages = range(len(network.stages))
    splits = tuple(branches if stage in split_stages else 1 for stage in stages)
    settings = {f.name: getattr(network, f.name) for f in fields(Network) if f.name != "parent"}
    settings["name"] = None
    return BranchedNetwork(**settings, splits=splits, rescale=rescale)


def split_branches(variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts the variables that inference has from those of training's other paths.

    Args:
      variables: one collection of a `BranchedNetwork`.

    Returns:
      The first path's, under the names of a `Network`, and the others'.
    """
    first = {name: value for name, value in variables.items() if not name.startswith(BRANCH)}
    others = {name: value for name, value in variables.items() if name.startswith(BRANCH)}
    return first, others


def path_name(part: str, path: int) -> str:
    """What a part of a path is named: in the first path as in inference, in others apart."""
    return part if path == 0 else f"{BRANCH}{path}_{part}"
