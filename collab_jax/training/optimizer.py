"""SGD as the paper's recipes use it."""

from typing import Any

import jax.numpy as jnp
import optax

from collab_jax.config import Config, decay_points

__all__ = ["create_optimizer", "learning_rate_schedule"]


def learning_rate_schedule(config: Config, steps_per_epoch: int) -> optax.Schedule:
    """Piecewise-constant decay after given epochs, with an optional linear warm-up.

    Args:
      config: uses `learning_rate`, `decay_epochs`, `decay_factor` and `warmup_epochs`.
      steps_per_epoch: turns epochs into steps.

    Returns:
      A schedule: step to learning rate.
    """
    boundaries: dict[int, float] = {}
    for epoch in decay_points(config):
        step = round(epoch * steps_per_epoch)
        boundaries[step] = boundaries.get(step, 1.0) * config.decay_factor
    decay = optax.piecewise_constant_schedule(config.learning_rate, boundaries)
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if warmup_steps == 0:
        return decay

    def schedule(count: Any) -> Any:
        return decay(count) * jnp.minimum(1.0, (count + 1) / warmup_steps)

    return schedule


def create_optimizer(config: Config, steps_per_epoch: int) -> optax.GradientTransformation:
    """SGD with momentum; L2 weight decay is added to the gradient, on all parameters.

    Args:
      config: uses the keys of the schedule, `momentum`, `nesterov` and `weight_decay`.
      steps_per_epoch: turns epochs into steps.

    Returns:
      The transformation, which computes what PyTorch's SGD does.
    """
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(
            learning_rate_schedule(config, steps_per_epoch),
            momentum=config.momentum or None,
            nesterov=config.nesterov,
        ),
    )
