"""FLOPs of whole runs, counted by XLA in their train steps."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from collab_jax import config as config_lib

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


def run_flops(config: ConfigDict) -> float | None:
    """FLOPs that a run trains with, evaluation left out.

    Args:
      config: of the run; the data set itself is not read.

    Returns:
      Steps times the FLOPs of one, None for a data set whose shapes are not known here.
    """
    if config.data.name not in IMAGES:
        return None
    import jax

    # Shapes are traced, nothing runs: no device has to be there. Not by the environment, which the
    # runs of a study would inherit.
    if not jax.config.jax_platforms:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_platforms", "cpu")

    from collab_jax.benchmark.workload import Case

    images, side, channels, classes = IMAGES[config.data.name]
    held_out = config.data.validation
    images -= round(held_out if held_out >= 1 else images * held_out)
    images = config.data.train_examples or images
    case = Case(
        model=config.model.name,
        method=config.method,
        batch_size=config.batch_size,
        image_size=config.data.image_size or side,
        num_classes=classes,
        channels=channels,
        dtype=config.model.dtype,
        overrides=_overrides(config),
    )
    step, init = case.step_and_init()
    lowered = jax.jit(step).lower(jax.eval_shape(init), case.abstract_batch())
    analysis: Any = lowered.cost_analysis()
    steps = images // config.batch_size * config.epochs
    return float(analysis["flops"]) * (min(config.steps, steps) if config.steps else steps)


def _overrides(config: ConfigDict) -> dict[str, Any]:
    own = {"method", "batch_size", "model.name", "model.dtype", "init_from", "continue_from"}
    return {
        name: new
        for name, _, new in config_lib.differences(config_lib.default_config(), config)
        if name not in own
    }
