"""All that a training run carries from one step to the next."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from collab_jax.models import init_variables, run_once
from collab_jax.objective import Objective
from collab_jax.training.keys import key_for, root_key

__all__ = ["Batch", "TrainState", "count_parameters", "create_train_state"]


@flax.struct.dataclass
class Batch:
    """Training examples as the data set holds them: arrays of the device, or of the host.

    Attributes:
      images: uint8 (B, H, W, C).
      labels: int32 (B,).
      indices: int32 (B,), each example's index in the training split.
    """

    images: Any
    labels: Any
    indices: Any


@flax.struct.dataclass
class TrainState:
    """A pytree that a checkpoint holds as it is: of arrays, or of their shapes or shardings.

    Attributes:
      step: steps done.
      key: data of the run's PRNG key; every step folds its number into it.
      params: the backbone's and classifier's parameters.
      heads: parameters of the training-only parts, by term.
      batch_stats: running statistics.
      opt_state: the optimizer's state, over (params, heads).
      sums: sums over the current epoch's steps, by name; see `step.train_step`.
      fault: the first step whose loss or gradient was not finite (-1: none) and which terms and
        gradients were not.
    """

    step: Any
    key: Any
    params: Any
    heads: Any
    batch_stats: Any
    opt_state: Any
    sums: dict[str, Any]
    fault: dict[str, Any]


def create_train_state(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
) -> TrainState:
    """Initialises a run.

    The backbone's initial parameters depend on the seed and the model alone, so that methods are
    compared from the same start.

    Args:
      model: a network that `create_experiment` made, called as `model(images, train=...)`.
      objective: the total loss.
      optimizer: over the tree (params, heads).
      image_shape: (H, W, C).
      seed: of everything that is random in the run.

    Returns:
      The state before the first step.
    """
    # A training pass needs an example for each part of the batch that is normalised by itself.
    batch = getattr(model, "norm_groups", 1)
    names = [term.name for term in objective.terms]

    def created(key: Any) -> TrainState:
        images = jnp.zeros((batch, *image_shape), jnp.float32)
        variables = init_variables(model, key_for("model", key), images[:1], train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        rngs = {"dropout": key_for("dropout", key)}
        heads = objective.init(key_for("heads", key), model, variables, images, rngs=rngs)
        leaves = len(jax.tree.leaves((params, heads)))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key=jax.random.key_data(key),
            params=params,
            heads=heads,
            batch_stats=batch_stats,
            opt_state=optimizer.init((params, heads)),
            sums={
                name: jnp.zeros((), jnp.float32)
                for name in ("steps", "skipped", "loss", "top1_wrong", "top5_wrong", *names)
            },
            fault={
                "step": jnp.full((), -1, jnp.int32),
                "terms": jnp.zeros((len(names),), bool),
                "gradients": jnp.zeros((leaves,), bool),
            },
        )

    return run_once(created, root_key(seed))


def count_parameters(tree: Any) -> int:
    """How many numbers are learned; `tree` holds parameters alone, no running statistics."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
