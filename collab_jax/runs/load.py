"""A finished model from a run directory, with no training-time parts."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from collab_jax.config import Config
from collab_jax.data import DataInfo
from collab_jax.errors import UserError
from collab_jax.models import Network
from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps, read_checkpoint
from collab_jax.runs.directory import read_config
from collab_jax.training.build import network

__all__ = ["Restored", "load", "load_run"]


@dataclass(frozen=True)
class Restored:
    """A checkpoint's inference part: `variables` holds `params` and `batch_stats`."""

    model: Network
    variables: dict[str, Any]
    info: DataInfo
    config: Config
    step: int


def load(run_dir: str | os.PathLike[str], which: str = "best") -> tuple[Network, dict[str, Any]]:
    """Restores a trained network for inference.

    Args:
      run_dir: the directory of a run.
      which: best, last or a step.

    Returns:
      `(model, variables)`: `model.apply(variables, images)` gives logits (B, m) of normalised
      images. The variables are the backbone's and the classifier's alone.

    Raises:
      UserError: if there is no run, or no such checkpoint.
      RunError: if the checkpoint is damaged.
    """
    restored = load_run(Path(run_dir), which)
    return restored.model, restored.variables


def load_run(run_dir: Path, which: str) -> Restored:
    """Restores a checkpoint's inference part and what is known of its data; see `load`."""
    config = read_config(run_dir)
    directory = checkpoint_dir(run_dir)
    complete = complete_steps(directory)
    if not complete:
        raise UserError(f"{run_dir}: holds no complete checkpoint; expected a run that saved one")
    if which == "last":
        step = complete[-1]
    elif which == "best":
        _, record = read_checkpoint(directory, complete[-1], lambda record: {})
        step = record["best"]["step"] if record["best"] else complete[-1]
    elif which.isdigit():
        step = int(which)
    else:
        raise UserError(f"checkpoint: {which!r} given; expected best, last or a step")

    def template(record: dict[str, Any]) -> dict[str, Any]:
        return dict(_variables(config, DataInfo.from_json(record["data"])))

    variables, record = read_checkpoint(directory, step, template)
    info = DataInfo.from_json(record["data"])
    return Restored(network(config, info.num_classes), variables, info, config, step)


def _variables(config: Config, info: DataInfo) -> Any:
    images = jnp.zeros((1, *info.image_shape), jnp.float32)
    return jax.eval_shape(network(config, info.num_classes).init, jax.random.key(0), images)
