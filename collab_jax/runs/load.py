"""A finished model from a run directory, with no training-time parts."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from collab_jax.config import Config
from collab_jax.data import DataInfo
from collab_jax.errors import UserError
from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps, read_checkpoint
from collab_jax.runs.directory import read_config
from collab_jax.runs.identity import check_record
from collab_jax.training.build import network

__all__ = ["Restored", "load", "load_run"]


_BATCH = 250
"""Images in a prediction step: the memory that `predict` needs does not grow with their number."""


@dataclass(frozen=True, eq=False)
class Restored:
    """A trained network for inference, with nothing of training left in it.

    Attributes:
      model: the network; `model.apply(variables, images, train=False)` gives logits (B, m) of
        normalised images.
      variables: `params` and `batch_stats` of the backbone and the classifier.
      info: what it must know of its data set.
      config: the run's.
      step: of the checkpoint.
    """

    model: nn.Module
    variables: dict[str, Any]
    info: DataInfo
    config: Config
    step: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """The m names of the classes, in the order of the logits."""
        return self.info.class_names

    def normalise(self, images: Any) -> jax.Array:
        """Raw uint8 images (B, H, W, C) to what `model` takes, float32; it may be traced."""
        return self.info.normalise(images)

    def logits(self, images: Any) -> np.ndarray:
        """Logits (B, m), float32, of raw images.

        Args:
          images: uint8 (B, H, W, C) as the data set holds them, any number of them.

        Raises:
          UserError: if the images have another type or shape.
        """
        images = self._checked(images)
        size = min(_BATCH, max(len(images), 1))
        found = [np.zeros((0, self.info.num_classes), np.float32)]
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            padding = ((0, size - len(batch)), (0, 0), (0, 0), (0, 0))
            found.append(np.asarray(self._step(np.pad(batch, padding)))[: len(batch)])
        return np.concatenate(found)

    def predict(self, images: Any) -> np.ndarray:
        """Probabilities (B, m), float32, of raw images; arguments and errors as `logits`."""
        return np.asarray(jax.nn.softmax(self.logits(images), axis=-1))

    @cached_property
    def _step(self) -> Callable[[Any], jax.Array]:
        def logits(images: Any) -> Any:
            return self.model.apply(self.variables, self.normalise(images), train=False)

        return jax.jit(logits)

    def _checked(self, images: Any) -> np.ndarray:
        images, shape = np.asarray(images), self.info.image_shape
        expected = f"expected uint8 ({', '.join(map(str, ('B', *shape)))})"
        if images.dtype != np.uint8:
            remedy = "; raw pixels from 0 to 255, which `predict` normalises itself"
            raise UserError(f"images: {images.dtype} given, {expected}{remedy}")
        if images.shape == shape:
            raise UserError(f"images: shape {shape} given, {expected}; for one image images[None]")
        if images.shape[1:] != shape:
            raise UserError(f"images: shape {images.shape} given, {expected}")
        return images


def load(run_dir: str | os.PathLike[str], which: str | int = "best") -> Restored:
    """Restores a trained network for inference.

    A network of the user's own is made anew by its function, which executes its file.

    Args:
      run_dir: the directory of a run.
      which: best, last or a step.

    Returns:
      The network with `predict`, `logits` and `class_names` for raw images, and `model`,
      `variables` and `normalise` for Flax code.

    Raises:
      UserError: if there is no run, or no such checkpoint; if the network is the user's own and
        its file has changed since.
      RunError: if the checkpoint is damaged.
    """
    return load_run(Path(run_dir), which)


def load_run(run_dir: Path, which: str | int) -> Restored:
    """Restores a checkpoint's inference part and what is known of its data; see `load`."""
    which = str(which)
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
    elif which.isascii() and which.isdigit():
        step = int(which)
    else:
        raise UserError(f"checkpoint: {which!r} given; expected best, last or a step")

    def template(record: dict[str, Any]) -> dict[str, Any]:
        check_record(directory / str(step), record, config)
        return _variables(config, DataInfo.from_json(record["data"]))

    variables, record = read_checkpoint(directory, step, template)
    info = DataInfo.from_json(record["data"])
    return Restored(network(config, info.num_classes), variables, info, config, step)


def _variables(config: Config, info: DataInfo) -> dict[str, Any]:
    model = network(config, info.num_classes)
    images = jnp.zeros((1, *info.image_shape), jnp.float32)
    found = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    return {name: found.get(name, {}) for name in ("params", "batch_stats")}
