"""A config's method as an objective: its table of terms."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax

from collab_jax.config import Config, schema
from collab_jax.config import terms as terms_of
from collab_jax.files.functions import is_own
from collab_jax.models import LocalHeads, Network, Projections, branched, stage_kernels
from collab_jax.models.instances import Instances
from collab_jax.objective import CrossEntropy, Kernel, Mid, Objective, Out, PullPush, Term
from collab_jax.training.dropping import dropping
from collab_jax.training.own_model import globs, selected_kernels
from collab_jax.training.rivals import rival_terms

__all__ = ["create_objective"]

_FEWEST_FILTERS = 8


def create_objective(
    config: Config, model: nn.Module, num_classes: int, steps_per_epoch: int
) -> Objective:
    """Builds the table of terms of a config's method.

    Args:
      config: a valid config.
      model: a network of ours, whose `layers` the terms look at, or of the user's own, whose layers
        the config names.
      num_classes: m.
      steps_per_epoch: turns a term's `ramp_epochs` into steps.

    Returns:
      The objective.
    """
    enabled = terms_of(config.method)
    own = not isinstance(model, Network)
    dtype = jnp.dtype("float32" if own else config.model.dtype)

    def weight(settings: schema.Mid | schema.PullPush | schema.Kernel) -> float | optax.Schedule:
        ramp_steps = round(settings.ramp_epochs * steps_per_epoch)
        if ramp_steps == 0:
            return settings.weight
        return optax.linear_schedule(0.0, settings.weight, ramp_steps)

    heads = LocalHeads(
        num_classes, _scaled(config.mid.head_width, config), config.mid.head_pool, dtype
    )
    projections = Projections(
        _scaled(config.pull_push.projection_width, config),
        config.pull_push.projection_kernel,
        config.pull_push.projection_pool,
        dtype,
    )
    out = partial(
        Out,
        temperature=config.out.temperature,
        alpha=config.out.alpha,
        scale_by_t2=config.out.scale_by_t2,
        stop_gradient=config.out.stop_gradient,
    )
    branch = None
    if config.method in ("tree", "multi_instance"):
        # Song & Chai add up the heads' losses: rescaling brings the shared part back to their mean.
        table: list[Term] = [out(weight=config.out.weight * config.multi_head.heads)]
        branch = _branching(config)
    elif "out" in enabled:
        table = [out(weight=config.out.weight)]
    else:
        table = [CrossEntropy()]
    if "mid" in enabled:
        table.append(
            Mid(
                weight=weight(config.mid),
                num_classes=num_classes,
                temperature=config.mid.temperature,
                alpha=config.mid.alpha,
                beta=config.mid.beta,
                output_view=config.mid.output_view,
                scale_by_t2=config.mid.scale_by_t2,
                stop_gradient=config.mid.stop_gradient,
                heads=heads,
            )
        )
    if "pull_push" in enabled:
        settings = config.pull_push
        of_inputs = settings.input_representation
        table.append(
            PullPush(
                weight=weight(settings),
                num_classes=num_classes,
                representation=settings.representation,
                input_representation=None if of_inputs == "same" else of_inputs,
                center=settings.center,
                projections=projections,
            )
        )
    if "kernel" in enabled:
        kernels = (
            partial(selected_kernels, layers=config.kernel.layers)
            if own
            else partial(_last_stages, stages=config.kernel.stages)
        )
        table.append(Kernel(weight=weight(config.kernel), kernels=kernels))
    table += rival_terms(config, num_classes, heads, projections)
    masks = config.out.masks_per_layer if "out" in enabled else 1
    # R-Drop compares the branches of out where there are some, and else those of two passes.
    passes = 2 if "r_drop" in enabled and masks == 1 else 1
    if not own:
        return Objective(
            table,
            layers=model.layers,
            runs=passes,
            options={"train": True, "masks_per_layer": masks},
            branch=branch,
            remat=config.model.remat or config.model.remat_heads,
            **dropping(config, model),
        )
    runs = masks**2 * passes
    return Objective(
        table,
        layers=globs(config.model.layers),
        then=globs(config.model.then),
        runs=runs,
        split_at=globs(config.model.split_at) if runs > 1 else None,
        options={"train": True},
        branch=branch,
        remat=config.model.remat or config.model.remat_heads,
    )


def _scaled(filters: int, config: Config) -> int:
    """Filters of a head in proportion to a narrow network's, so that its share of the cost stays.

    At least 8, or as many as at width 1 where those are fewer; a wide network's heads do not grow.
    """
    width = 1.0 if is_own(config.model.name) else min(config.model.width, 1.0)
    return min(filters, max(_FEWEST_FILTERS, round(filters * width)))


def _last_stages(params: Mapping[str, Any], stages: int) -> tuple[Any, ...]:
    return stage_kernels(dict(params), stages)


def _branching(config: Config) -> Callable[[Any], nn.Module | Instances]:
    settings = config.multi_head

    def branch(network: Any) -> nn.Module | Instances:
        if config.method == "multi_instance":
            return Instances(network, settings.heads)
        stages, splits = len(network.stages), round(math.log2(settings.heads))
        split_stages = tuple(settings.split_stages) or tuple(range(stages - splits, stages))
        return branched(network, split_stages=split_stages, branches=2, rescale=settings.rescale)

    return branch
