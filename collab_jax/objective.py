"""A method is a table of weighted terms over what one training pass puts out (Sec. III)."""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from ml_collections import ConfigDict

from collab_jax import linen, losses
from collab_jax.config import terms as terms_of
from collab_jax.models import (
    LocalHeads,
    Network,
    Projections,
    branched,
    init_variables,
    split_branches,
    stage_kernels,
)

__all__ = ["Objective", "Outputs", "Term", "create_objective"]


@flax.struct.dataclass
class Outputs:
    """What one training pass puts out.

    Attributes:
      logits: (H, B, m), one row a branch.
      labels: int (B,).
      inputs: normalised images (B, H, W, C).
      params: the backbone's parameters.
      features: N local feature maps in depth order, if any term captures them.
      heads: parameters of the training-only parts, by term.
    """

    logits: Float[Array, "branches batch classes"]
    labels: Array
    inputs: Array
    params: Mapping[str, Any]
    features: tuple[Array, ...]
    heads: Mapping[str, Any]


@dataclass(frozen=True)
class Term:
    """One line of the total loss.

    Attributes:
      name: under which its unweighted value is logged.
      weight: a number, or an optax schedule of the step.
      fn: `Outputs` to the term's unweighted value, a scalar.
      head: a module of its own that `fn` applies to the local features with
        `outputs.heads[name]`; a term that has one makes the pass capture local features.
      of_parameters: whether `fn` takes the backbone's parameters alone, in place of `Outputs`.
    """

    name: str
    weight: float | optax.Schedule
    fn: Callable[[Any], Float[Array, ""]]
    head: nn.Module | None = None
    of_parameters: bool = False


@dataclass(frozen=True)
class Objective:
    """The total loss of a method.

    Attributes:
      terms: its terms; the first is the output layer's.
      masks_per_layer: K, the dropout masks of each hidden layer of the classifier.
      branch: the network to its training form with several heads, for methods that train copies
        of its parts; the copies' parameters are `heads["branches"]`.
    """

    terms: tuple[Term, ...]
    masks_per_layer: int = 1
    branch: Callable[[Any], nn.Module] | None = None
    capture: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "capture", any(term.head is not None for term in self.terms))

    def init_heads(self, key: PRNGKeyArray, features: tuple[Any, ...]) -> dict[str, Any]:
        """Initialises the parameters of every term's training-only part.

        Each term has its own key, so that a term's head does not depend on the other terms.

        Args:
          key: a PRNG key.
          features: the local features, or their shapes.

        Returns:
          A dictionary of parameter trees by term.
        """
        zeros = tuple(jnp.zeros(feature.shape, feature.dtype) for feature in features)
        heads = {}
        for term in self.terms:
            if term.head is not None:
                term_key = jax.random.fold_in(key, zlib.crc32(term.name.encode()))
                heads[term.name] = init_variables(term.head, term_key, zeros)["params"]
        return heads

    def init_branches(
        self, key: PRNGKeyArray, model: nn.Module, images: Float[Array, "..."]
    ) -> dict[str, Any]:
        """Initialises the copies that `branch` adds to a network.

        Args:
          key: a PRNG key.
          model: the network.
          images: (B, H, W, C).

        Returns:
          Their parameters, to be kept as `heads["branches"]`; nothing without `branch`.
        """
        if self.branch is None:
            return {}
        variables = init_variables(self.branch(model), key, images)
        return {"branches": split_branches(variables["params"])[1]}

    def forward(
        self,
        model: nn.Module,
        params: Mapping[str, Any],
        heads: Mapping[str, Any],
        batch_stats: Mapping[str, Any],
        inputs: Float[Array, "batch height width channels"],
        labels: Array,
        key: PRNGKeyArray,
    ) -> tuple[Outputs, Any]:
        """Runs one training pass.

        Args:
          model: a module that `create_model` made, or one of the same contract.
          params: its parameters.
          heads: the parameters that `init_heads` made.
          batch_stats: its running statistics.
          inputs: normalised images (B, H, W, C).
          labels: int (B,).
          key: the key of the dropout masks.

        Returns:
          The outputs and the new running statistics.
        """
        options = {
            "train": True,
            "masks_per_layer": self.masks_per_layer,
            "rngs": {"dropout": key},
        }
        if self.branch is not None:
            model, params_in_use = self.branch(model), {**params, **heads["branches"]}
        else:
            params_in_use = params
        variables = {"params": params_in_use, "batch_stats": batch_stats}
        if self.capture:
            layers = getattr(model, "layers", None)
            captured = linen.capture(model, variables, inputs, layers=layers, **options)
            logits, features, updated, _ = captured
        else:
            logits, updated = model.apply(variables, inputs, mutable=["batch_stats"], **options)
            features = ()
        outputs = Outputs(logits, labels, inputs, params, features, heads)
        # Copies never run in inference, so that nothing needs their running statistics.
        return outputs, split_branches(updated["batch_stats"])[0]

    def __call__(
        self, outputs: Outputs, step: Array | int
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Computes the total loss.

        Args:
          outputs: what `forward` returned.
          step: the training step, for the terms whose weight is a schedule.

        Returns:
          The weighted sum, and every term's unweighted value by name.
        """
        total, values = self.of_outputs(outputs, step)
        more, others = self.of_parameters(outputs.params, step)
        return total + more, self.in_order({**values, **others})

    def of_outputs(
        self, outputs: Outputs, step: Array | int
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The part of the total loss that a pass determines, as `__call__` gives it."""
        return self._sum([term for term in self.terms if not term.of_parameters], outputs, step)

    def of_parameters(
        self, params: Mapping[str, Any], step: Array | int
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The part that the backbone's parameters determine, whatever the batch."""
        return self._sum([term for term in self.terms if term.of_parameters], params, step)

    def in_order(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The terms' values in the order of `terms`."""
        return {term.name: values[term.name] for term in self.terms}

    def _sum(
        self, terms: list[Term], argument: Any, step: Array | int
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        values = {}
        total = jnp.zeros((), jnp.float32)
        for term in terms:
            with jax.named_scope(term.name):
                values[term.name] = term.fn(argument)
            weight = term.weight(step) if callable(term.weight) else term.weight
            total = total + weight * values[term.name]
        return total, values


def create_objective(config: ConfigDict, num_classes: int, steps_per_epoch: int) -> Objective:
    """Builds the table of terms of a config's method.

    Args:
      config: a valid config.
      num_classes: m.
      steps_per_epoch: turns a term's `ramp_epochs` into steps.

    Returns:
      The objective.
    """
    enabled = terms_of(config.method)
    dtype = jnp.dtype(config.model.dtype)

    def weight(settings: ConfigDict) -> float | optax.Schedule:
        ramp_steps = round(settings.ramp_epochs * steps_per_epoch)
        if ramp_steps == 0:
            return settings.weight
        return optax.linear_schedule(0.0, settings.weight, ramp_steps)

    branch = None
    if config.method in ("tree", "multi_instance"):
        # Song & Chai add up the heads' losses: rescaling brings the shared part back to their mean.
        total_weight = config.out.weight * config.multi_head.heads
        table = [Term("out", total_weight, partial(_out, settings=config.out))]
        branch = _branching(config)
    elif "out" in enabled:
        table = [Term("out", config.out.weight, partial(_out, settings=config.out))]
    else:
        table = [Term("cross_entropy", 1.0, _cross_entropy)]
    if "mid" in enabled:
        heads = LocalHeads(num_classes, config.mid.head_width, config.mid.head_pool, dtype)
        fn = partial(_mid, heads=heads, settings=config.mid)
        table.append(Term("mid", weight(config.mid), fn, heads))
    if "pull_push" in enabled:
        settings = config.pull_push
        projections = Projections(
            settings.projection_width, settings.projection_kernel, settings.projection_pool, dtype
        )
        fn = partial(
            _pull_push, projections=projections, settings=settings, num_classes=num_classes
        )
        table.append(Term("pull_push", weight(settings), fn, projections))
    if "kernel" in enabled:
        fn = partial(_kernel, stages=config.kernel.stages)
        table.append(Term("kernel", weight(config.kernel), fn, of_parameters=True))
    masks_per_layer = config.out.masks_per_layer if "out" in enabled else 1
    return Objective(tuple(table), masks_per_layer, branch)


def _branching(config: ConfigDict) -> Callable[[Any], nn.Module]:
    settings = config.multi_head

    def branch(network: Network) -> nn.Module:
        if config.method == "multi_instance":
            return branched(
                network, split_stages=(), branches=settings.heads, rescale=settings.rescale
            )
        stages, splits = len(network.stages), round(math.log2(settings.heads))
        split_stages = tuple(settings.split_stages) or tuple(range(stages - splits, stages))
        return branched(network, split_stages=split_stages, branches=2, rescale=settings.rescale)

    return branch


def _cross_entropy(outputs: Outputs) -> Array:
    """Eq. 1 at T = 1, averaged over the batch (and over branches, where there are several)."""
    return jax.vmap(lambda logits: losses.hard_loss(logits, outputs.labels))(outputs.logits).mean()


def _out(outputs: Outputs, settings: ConfigDict) -> Array:
    """Eq. 4, averaged over the batch."""
    return losses.collaborative_loss(
        outputs.logits,
        outputs.labels,
        temperature=settings.temperature,
        alpha=settings.alpha,
        scale_by_t2=settings.scale_by_t2,
        stop_gradient=settings.stop_gradient,
    ).mean()


def _mid(outputs: Outputs, heads: LocalHeads, settings: ConfigDict) -> Array:
    """Eq. 7, summed over layers and averaged over the batch."""
    with jax.named_scope("heads"):
        local_logits: Any = heads.apply({"params": outputs.heads["mid"]}, outputs.features)
    # The output joins as a target only: it must not learn from the local term.
    output_logits = jax.lax.stop_gradient(outputs.logits.mean(axis=0))
    values = losses.intermediate_loss(
        local_logits,
        outputs.labels,
        temperature=settings.temperature,
        alpha=settings.alpha,
        beta=settings.beta,
        output_logits=output_logits if settings.output_view else None,
        scale_by_t2=settings.scale_by_t2,
        stop_gradient=settings.stop_gradient,
    )
    return values.sum(axis=0).mean()


def _pull_push(
    outputs: Outputs, projections: Projections, settings: ConfigDict, num_classes: int
) -> Array:
    """Eq. 9, summed over layers."""
    with jax.named_scope("heads"):
        projected: Any = projections.apply({"params": outputs.heads["pull_push"]}, outputs.features)
    layers = len(outputs.features)
    return losses.pull_push_loss(
        projected,
        outputs.inputs,
        outputs.labels,
        pull=jnp.linspace(0.0, 1.0, layers),
        push=jnp.linspace(1.0, 0.0, layers),
        num_classes=num_classes,
        representation=settings.representation,
        input_representation=(
            None if settings.input_representation == "same" else settings.input_representation
        ),
        center=settings.center,
    ).sum()


def _kernel(params: Mapping[str, Any], stages: int) -> Array:
    """Eq. 10, summed over the kernels of the last stages."""
    kernels = stage_kernels(dict(params), stages)
    return jnp.stack([losses.kernel_loss(kernel) for kernel in kernels]).sum()
