"""FLOPs of whole runs, counted by XLA in their train steps."""

from __future__ import annotations

from functools import partial
from typing import Any

from collab_jax.config import Config
from collab_jax.errors import UserError

__all__ = ["IMAGES", "run_flops"]

IMAGES = {
    "cifar10": (50_000, 32, 3, 10),
    "cifar100": (50_000, 32, 3, 100),
    "imagenet_resized/32x32": (1_281_167, 32, 3, 1000),
    "stl10": (5_000, 96, 3, 10),
    "fashion_mnist": (60_000, 28, 1, 10),
    "digits": (1_437, 8, 1, 10),
}
"""Training images, side, channels and classes of the data sets that the recipes name."""


def run_flops(config: Config) -> float | None:
    """FLOPs that a run trains with, evaluation left out.

    Args:
      config: of the run; its data are read where the recipes do not name them.

    Returns:
      Steps times the FLOPs of one; None where the data cannot be read.
    """
    import jax
    import jax.numpy as jnp

    from collab_jax.training.build import create_experiment, total_steps
    from collab_jax.training.state import Batch, create_train_state
    from collab_jax.training.step import train_step

    # Shapes are traced, nothing runs: no device has to be there. Not by the environment, which the
    # runs of a study would inherit.
    if not jax.config.jax_platforms:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_platforms", "cpu")

    try:
        images, info = _data(config)
    except UserError:
        return None
    steps_per_epoch = images // config.batch_size
    parts = create_experiment(config, info, steps_per_epoch)
    init = partial(
        create_train_state,
        parts.model,
        parts.objective,
        parts.optimizer,
        info.image_shape,
        seed=0,
    )
    batch = jax.eval_shape(
        lambda: Batch(
            images=jnp.zeros((config.batch_size, *info.image_shape), jnp.uint8),
            labels=jnp.zeros(config.batch_size, jnp.int32),
            indices=jnp.zeros(config.batch_size, jnp.int32),
        )
    )
    step = jax.jit(partial(train_step, parts.settings))
    analysis: Any = step.lower(jax.eval_shape(init), batch).cost_analysis()
    return float(analysis["flops"]) * total_steps(config, steps_per_epoch)


def _data(config: Config) -> tuple[int, Any]:
    """Training images of a run, and what its step must know of the data."""
    from collab_jax.data import DataInfo
    from collab_jax.training.build import load_data

    if config.data.name not in IMAGES:
        dataset = load_data(config)
        return len(dataset.train), DataInfo.of(dataset)
    images, side, channels, classes = IMAGES[config.data.name]
    held_out = config.data.validation
    images -= round(held_out if held_out >= 1 else images * held_out)
    side = config.data.image_size or side
    info = DataInfo(
        num_classes=classes,
        class_names=tuple(map(str, range(classes))),
        image_shape=(side, side, channels),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
    return config.data.train_examples or images, info
