"""What one would pick in place of the collaborations, each a line of the total loss."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from collab_jax import losses
from collab_jax.losses.cross_entropy import distillation_loss, soften
from collab_jax.models import Chosen, Hints, LocalHeads, Pair, Projections
from collab_jax.objective.outputs import Outputs
from collab_jax.objective.table import Term

__all__ = ["HSIC", "Auxiliary", "DeCov", "PredSim", "RDrop", "SelfDistillation"]


@dataclass(frozen=True, kw_only=True)
class Auxiliary(Term):
    """Deep supervision: classifiers at several layers, whose gradient moves all below them.

    Their cross-entropy, the hard part of L_mid at T = 1 without its locality, summed over layers.

    Attributes:
      num_classes: m.
      layers: numbers of the layers, counted from 0; empty: those behind which the map shrinks, or
        all where none does.
      heads: the classifiers; None: `LocalHeads(num_classes)`.

    References:
      C.-Y. Lee et al., "Deeply-Supervised Nets", 2015. The weight is that of C. Szegedy et
      al., "Going Deeper with Convolutions", 2015.
    """

    name: str = "auxiliary"
    weight: Any = 0.3
    num_classes: int
    layers: tuple[int, ...] = ()
    heads: nn.Module | None = None
    reads_through = True

    @property
    def head(self) -> nn.Module:
        return Chosen(self.heads or LocalHeads(self.num_classes), self.layers)

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        logits: Any = outputs.head(self, outputs.through)
        return outputs.mean(_hard(logits, outputs.labels).sum(axis=0))


@dataclass(frozen=True, kw_only=True)
class SelfDistillation(Term):
    """Classifiers at several layers learn from the labels and from the network's own output.

    The output is their teacher and learns nothing from them but by the layers that it shares; its
    cross-entropy stands beside this term. Summed over layers.

    Attributes:
      num_classes: m.
      layers: numbers of the layers, as in `Auxiliary`.
      temperature: T of the soft part.
      alpha: share of the soft part.
      hint: weight of the squared distance between a layer's features, averaged over pixels and
        projected, and the last layer's; 0: no such part.
      heads: the classifiers; None: `LocalHeads(num_classes)`.

    References:
      L. Zhang et al., "Be Your Own Teacher: Improve the Performance of Convolutional Neural
      Networks via Self Distillation", 2019.
    """

    name: str = "self_distillation"
    num_classes: int
    layers: tuple[int, ...] = ()
    temperature: float = 3.0
    alpha: float = 0.3
    hint: float = 0.0
    heads: nn.Module | None = None
    reads_through = True

    @property
    def head(self) -> nn.Module:
        classifiers = Chosen(self.heads or LocalHeads(self.num_classes), self.layers)
        return Pair(classifiers, Hints(self.layers)) if self.hint else classifiers

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        found: Any = outputs.head(self, outputs.through)
        logits, hints = found if self.hint else (found, None)
        teacher = outputs.branches.mean(axis=0)
        targets = jnp.broadcast_to(soften(teacher, self.temperature, True), logits.shape)
        soft = distillation_loss(logits, targets, self.temperature, False)
        hard = _hard(logits, outputs.labels)
        loss = ((1 - self.alpha) * hard + self.alpha * soft).sum(axis=0)
        if hints is not None:
            deepest = jax.lax.stop_gradient(_pixel_mean(outputs.through[-1]))
            loss += self.hint * jnp.square(hints - deepest[None]).sum(axis=(0, 2))
        return outputs.mean(loss)


@dataclass(frozen=True, kw_only=True)
class PredSim(Term):
    """Local error signals: in every layer a classifier's loss and similarity matching, both local.

    Attributes:
      num_classes: m.
      beta: share of the similarity loss.
      local_only: whether they are all that the layers learn from: the gradient of what follows
        stops at each layer's output, and the output's own loss reaches what follows the last one.
      heads: the classifiers; None: `LocalHeads(num_classes)`.
      projections: a layer's convolution before its similarities; None: `Projections()`.

    References:
      A. Nøkland and L. H. Eidnes, "Training Neural Networks with Local Error Signals", 2019.
    """

    name: str = "predsim"
    num_classes: int
    beta: float = 0.99
    local_only: bool = False
    heads: nn.Module | None = None
    projections: nn.Module | None = None

    @property
    def stops_layers(self) -> bool:
        return self.local_only

    @property
    def head(self) -> nn.Module:
        return Pair(self.heads or LocalHeads(self.num_classes), self.projections or Projections())

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        logits, projected = outputs.head(self, outputs.features)
        predicted = outputs.mean(_hard(logits, outputs.labels).sum(axis=0))
        similar = losses.similarity_loss(projected, outputs.labels, num_classes=self.num_classes)
        return (1 - self.beta) * predicted + self.beta * similar.sum()


@dataclass(frozen=True, kw_only=True)
class RDrop(Term):
    """The symmetric divergence between predictions under different dropout, beside their losses.

    R-Drop adds up the losses of its two passes, where `CrossEntropy` takes their mean: its weight
    of .6 is .3 here.

    References:
      X. Liang et al., "R-Drop: Regularized Dropout for Neural Networks", 2021.
    """

    name: str = "r_drop"
    weight: Any = 0.3

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        return outputs.mean(losses.r_drop_loss(outputs.branches))


@dataclass(frozen=True, kw_only=True)
class HSIC(Term):
    """The HSIC bottleneck in every layer, local, summed over layers.

    Attributes:
      num_classes: m.
      beta: weight of the dependence on the labels.
      sigma: width of the kernel.

    References:
      W.-D. K. Ma, J. P. Lewis and W. B. Kleijn, "The HSIC Bottleneck: Deep Learning without
      Back-Propagation", 2020.
    """

    name: str = "hsic"
    weight: Any = 0.002
    num_classes: int
    beta: float = 500.0
    sigma: float = 5.0

    @property
    def reads_features(self) -> bool:
        return True

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        return losses.hsic_loss(
            outputs.features,
            outputs.inputs,
            outputs.labels,
            beta=self.beta,
            sigma=self.sigma,
            num_classes=self.num_classes,
        ).sum()


@dataclass(frozen=True, kw_only=True)
class DeCov(Term):
    """The covariances of the last layer's features, averaged over pixels; moves all layers.

    References:
      M. Cogswell et al., "Reducing Overfitting in Deep Networks by Decorrelating Representations",
      2016.
    """

    name: str = "decov"
    weight: Any = 0.1
    reads_through = True

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        return losses.decov_loss(_pixel_mean(outputs.through[-1]))


def _hard(logits: Float[Array, "layers batch classes"], labels: Array) -> Float[Array, "layers _"]:
    return jax.vmap(lambda z: losses.hard_loss(z, labels))(logits)


def _pixel_mean(feature: Float[Array, "batch ... channels"]) -> Float[Array, "batch channels"]:
    return feature.mean(axis=tuple(range(1, feature.ndim - 1)))
