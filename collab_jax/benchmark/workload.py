"""One train step to be planned or measured."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from collab_jax import config as config_lib
from collab_jax.data import DataInfo
from collab_jax.training.build import Experiment, create_experiment
from collab_jax.training.state import Batch, TrainState, create_train_state
from collab_jax.training.step import train_step

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """A model, a method and a batch.

    Attributes:
      model: name of the model.
      method: as a config names it.
      batch_size: B.
      image_size: side of the square images, in pixels.
      num_classes: m.
      channels: of an image.
      dtype: of the computation.
      overrides: other config keys.
    """

    model: str = "vgg16"
    method: str = "baseline"
    batch_size: int = 128
    image_size: int = 32
    num_classes: int = 10
    channels: int = 3
    dtype: str = "float32"
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "overrides": dict(self.overrides)}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.image_size, self.image_size, self.channels

    def experiment(self) -> Experiment:
        """The parts of a run with this method."""
        changes = {
            "method": self.method,
            "batch_size": self.batch_size,
            "model.name": self.model,
            "model.dtype": self.dtype,
            **self.overrides,
        }
        config = config_lib.replace(config_lib.Config(), changes)
        info = DataInfo(
            num_classes=self.num_classes,
            class_names=tuple(str(label) for label in range(self.num_classes)),
            image_shape=self.image_shape,
            mean=(0.5,) * self.channels,
            std=(0.25,) * self.channels,
        )
        return create_experiment(config, info, steps_per_epoch=100)

    def init(self, made: Experiment) -> TrainState:
        """The first state of `experiment`'s run."""
        return create_train_state(
            made.model, made.objective, made.optimizer, self.image_shape, seed=0
        )

    def step_and_init(
        self,
    ) -> tuple[Callable[[TrainState, Batch], Any], Callable[[], TrainState]]:
        """The train step of a run with this method, and what makes its first state."""
        made = self.experiment()
        return partial(train_step, made.settings), partial(self.init, made)

    def batch(self) -> Batch:
        """Random images and labels."""
        rng = np.random.default_rng(0)
        shape = (self.batch_size, *self.image_shape)
        return Batch(
            images=jnp.asarray(rng.integers(0, 256, shape, np.uint8)),
            labels=jnp.asarray(rng.integers(0, self.num_classes, self.batch_size), jnp.int32),
            indices=jnp.arange(self.batch_size, dtype=jnp.int32),
        )

    def abstract_batch(self) -> Any:
        return jax.eval_shape(self.batch)
