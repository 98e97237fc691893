"""The paper's four terms and the plain cross-entropy, each a line of the total loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from collab_jax import losses
from collab_jax.losses.cosines import Center
from collab_jax.losses.similarity import Representation, as_vectors
from collab_jax.models import LocalHeads, Projections
from collab_jax.models.heads import is_by_layer
from collab_jax.objective.outputs import Outputs
from collab_jax.objective.table import Term

__all__ = ["CrossEntropy", "Kernel", "Mid", "Out", "PullPush"]


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Term):
    """Eq. 1 at T = 1, averaged over the batch (and over branches, where there are several)."""

    name: str = "cross_entropy"

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        def hard(logits: Array) -> Array:
            return losses.hard_loss(logits, outputs.labels)

        return outputs.mean(jax.vmap(hard)(outputs.branches).mean(axis=0))


@dataclass(frozen=True, kw_only=True)
class Out(Term):
    """L_out (Eq. 4) of H >= 2 branches; it takes the place of `CrossEntropy`.

    Attributes:
      temperature: T of the soft part.
      alpha: share of the hard part.
      scale_by_t2: whether the soft part is multiplied by T^2.
      stop_gradient: whether the soft targets are constants.
    """

    name: str = "out"
    temperature: float = 2.0
    alpha: float = 0.5
    scale_by_t2: bool = False
    stop_gradient: bool = True

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        return outputs.mean(
            losses.collaborative_loss(
                outputs.branches,
                outputs.labels,
                temperature=self.temperature,
                alpha=self.alpha,
                scale_by_t2=self.scale_by_t2,
                stop_gradient=self.stop_gradient,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Mid(Term):
    """L_mid (Eq. 7), summed over layers: local classifiers, one a captured feature.

    Attributes:
      num_classes: m.
      temperature: T of both parts.
      alpha: weight of the hard part.
      beta: weight of the soft part.
      output_view: whether the output logits are one more, highest, view to learn from.
      scale_by_t2: whether the soft part is multiplied by T^2.
      stop_gradient: whether the soft targets are constants.
      heads: the local classifiers; None: `LocalHeads(num_classes)`. A module of your own maps a
        sequence of N features to logits (N, B, ..., m); one that is `ByLayer` needs less memory.
    """

    name: str = "mid"
    num_classes: int
    temperature: float = 2.0
    alpha: float = 0.05
    beta: float = 0.05
    output_view: bool = False
    scale_by_t2: bool = False
    stop_gradient: bool = True
    heads: nn.Module | None = None

    @property
    def head(self) -> nn.Module:
        return self.heads or LocalHeads(self.num_classes)

    @property
    def by_layer(self) -> bool:
        return type(self).value is Mid.value and is_by_layer(self.head)

    def of_layer(self, head: Any, index: int, feature: Array) -> Any:
        return head.of_layer(index, feature)

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        if is_by_layer(self.head):
            local_logits: Any = jnp.stack(outputs.of_layers(self))
        else:
            local_logits = outputs.head(self, outputs.features)
        if local_logits.shape[1:-1] != outputs.branches.shape[1:-1]:
            raise ValueError(
                f"heads of {self.name!r}: local logits of shape {local_logits.shape} with labels "
                f"of shape {outputs.labels.shape}; expected one row of classes for each label: "
                "Objective(tokens=True) for labels of tokens, or heads of your own"
            )
        # The output joins as a target only: it must not learn from the local term.
        output_logits = jax.lax.stop_gradient(outputs.branches.mean(axis=0))
        values = losses.intermediate_loss(
            local_logits,
            outputs.labels,
            temperature=self.temperature,
            alpha=self.alpha,
            beta=self.beta,
            output_logits=output_logits if self.output_view else None,
            scale_by_t2=self.scale_by_t2,
            stop_gradient=self.stop_gradient,
        )
        return outputs.mean(values.sum(axis=0))


@dataclass(frozen=True, kw_only=True)
class PullPush(Term):
    """L_pull-push (Eq. 9), summed over layers: projections, one a captured feature.

    The layers are pulled to the labels with weights from 0 to 1 in depth and pushed from the inputs
    with weights from 1 to 0.

    Attributes:
      num_classes: m; token numbers as inputs are below it too.
      representation: the vector of a map, see `losses.similarity_matrix`.
      input_representation: that of an input; None: the same.
      center: the mean that S subtracts.
      per_example: whether the norms are divided by the batch size, which makes a weight carry over
        to other batch sizes; False: as printed.
      projections: g_i; None: `Projections()`. A module of your own maps a sequence of N features to
        N arrays; one that is `ByLayer` needs less memory.
    """

    name: str = "pull_push"
    weight: Any = 1.28
    num_classes: int
    representation: Representation = "auto"
    input_representation: Representation | None = None
    center: Center = "features"
    per_example: bool = True
    projections: nn.Module | None = None

    @property
    def head(self) -> nn.Module:
        return self.projections or Projections()

    @property
    def by_layer(self) -> bool:
        return type(self).value is PullPush.value and is_by_layer(self.head)

    def of_layer(self, head: Any, index: int, feature: Array) -> Array:
        maps = head.of_layer(index, feature)
        name = f"projections[{index}]"
        return as_vectors(maps, name, self.representation, self.center)

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        if is_by_layer(self.head):
            projected: Any = outputs.of_layers(self)
        else:
            projected = outputs.head(self, outputs.features)
        layers = len(projected)
        return losses.pull_push_loss(
            projected,
            _comparable(outputs.inputs, self.num_classes),
            outputs.labels,
            pull=jnp.linspace(0.0, 1.0, layers),
            push=jnp.linspace(1.0, 0.0, layers),
            num_classes=self.num_classes,
            representation=self.representation,
            input_representation=self.input_representation,
            center=self.center,
            per_example=self.per_example,
        ).sum()


def _comparable(inputs: Array, num_classes: int) -> Array:
    """Inputs of which S is taken: whole numbers (B,) or (B, L) are tokens, as one-hot vectors."""
    if not jnp.issubdtype(inputs.dtype, jnp.integer):
        return inputs
    return jax.nn.one_hot(inputs, num_classes) if inputs.ndim < 3 else inputs.astype(jnp.float32)


@dataclass(frozen=True, kw_only=True)
class Kernel(Term):
    """L_kernel (Eq. 10), summed over kernels.

    Attributes:
      kernels: the network's parameters to the kernels, each (..., filters).
    """

    name: str = "kernel"
    weight: Any = 1e-3
    kernels: Callable[[Mapping[str, Any]], Sequence[Array]]
    of_parameters = True

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        kernels = self.kernels(outputs.params)
        if not kernels:
            raise ValueError("kernels: none selected; expected at least one kernel (..., filters)")
        return jnp.stack([losses.kernel_loss(kernel) for kernel in kernels]).sum()
