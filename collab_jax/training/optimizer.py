"""The optimizer and its learning rate, by default SGD as the paper's recipes use it."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array

from collab_jax.config import Config, decay_points

__all__ = ["create_optimizer", "learning_rate_schedule", "steps_taken"]


def learning_rate_schedule(config: Config, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate's decay, with an optional linear warm-up before it.

    Args:
      config: uses `learning_rate`, `schedule`, `decay_epochs`, `decay_factor`, `epochs` and
        `warmup_epochs`.
      steps_per_epoch: turns epochs into steps.

    Returns:
      A schedule: step to learning rate.
    """
    decay = _decay(config, steps_per_epoch)
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if warmup_steps == 0:
        return decay

    def schedule(count: Any) -> Any:
        return decay(count) * jnp.minimum(1.0, (count + 1) / warmup_steps)

    return schedule


def _decay(config: Config, steps_per_epoch: int) -> optax.Schedule:
    if config.schedule == "constant":
        return optax.constant_schedule(config.learning_rate)
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(config.learning_rate, config.epochs * steps_per_epoch)
    boundaries: dict[int, float] = {}
    for epoch in decay_points(config):
        step = round(epoch * steps_per_epoch)
        boundaries[step] = boundaries.get(step, 1.0) * config.decay_factor
    return optax.piecewise_constant_schedule(config.learning_rate, boundaries)


def create_optimizer(config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD with momentum, AdamW or Lion, on all parameters.

    SGD adds the L2 weight decay to the gradient, and computes what PyTorch's does. The others
    decouple it from the gradient, with optax's values for the rest: AdamW by Loshchilov and
    Hutter, "Decoupled Weight Decay Regularization"; Lion by Chen et al., "Symbolic Discovery of
    Optimization Algorithms".

    Args:
      config: uses the keys of the schedule, `optimizer`, `momentum`, `nesterov` and
        `weight_decay`.
      steps_per_epoch: turns epochs into steps.

    Returns:
      The transformation.
    """
    schedule = learning_rate_schedule(config, steps_per_epoch)
    if config.optimizer.name == "adamw":
        return optax.adamw(schedule, weight_decay=config.weight_decay)
    if config.optimizer.name == "lion":
        return optax.lion(schedule, weight_decay=config.weight_decay)
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(schedule, momentum=config.momentum or None, nesterov=config.nesterov),
    )


def steps_taken(opt_state: Any) -> Array:
    """The count of steps that an optimizer's learning rate is a function of."""

    def of_schedule(path: Any, value: Any) -> bool:
        return getattr(path[-1], "tuple_name", "") == "ScaleByScheduleState"

    return optax.tree_utils.tree_get(opt_state, "count", filtering=of_schedule)
