"""Batches for the train step, from arrays on the device or on the host."""

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from collab_jax import data
from collab_jax.training.placement import Placement
from collab_jax.training.state import Batch, TrainState
from collab_jax.training.step import StepSettings, train_chunk, train_step

__all__ = ["Feed"]

_HOST_BYTES = 2 << 30
_DEVICE_SHARE = 0.25

Report = dict[str, jax.Array]


class Feed:
    """Runs train steps over a split.

    Where the split fits, it stays on every device and a step gathers its own batch there;
    otherwise the host gathers the next batch while the devices compute. It then holds two
    dispatches' batches, and 12 bytes an example for an epoch's order while that is drawn; a
    memory-mapped split takes no more.

    Args:
      split: the training split.
      settings: of the step.
      placement: of the run's arrays.
      batch_size: B, a multiple of the number of devices.
      seed: of the order of the data.
      resident: auto, always or never.
      chunk: steps in one dispatched program; what is left of an epoch is dispatched step by step.

    Attributes:
      resident: whether the split is on the devices.
    """

    def __init__(
        self,
        split: data.Split,
        settings: StepSettings,
        placement: Placement,
        *,
        batch_size: int,
        seed: int,
        resident: str = "auto",
        chunk: int = 1,
    ) -> None:
        self._split, self._placement = split, placement
        self._batch_size = batch_size
        self._seed = seed
        self._chunk = chunk
        self._steps_per_epoch = len(split) // batch_size
        self.resident = _fits(split.nbytes) if resident == "auto" else resident == "always"
        step = partial(train_step, settings)
        compiled = partial(jax.jit, out_shardings=placement.everywhere)
        if self.resident:

            def gathered(arrays: Any, state: TrainState, indices: jax.Array):
                images, labels = (a.at[indices].get(mode="promise_in_bounds") for a in arrays)
                return step(state, Batch(images=images, labels=labels, indices=indices))

            def run(arrays: Any, state: TrainState, indices: jax.Array):
                if indices.ndim == 2:
                    return train_chunk(partial(gathered, arrays), state, indices)
                return gathered(arrays, state, indices)

            self._run = compiled(run, donate_argnums=1)
        else:

            def run_batch(state: TrainState, batch: Batch):
                if batch.labels.ndim == 2:
                    return train_chunk(step, state, batch)
                return step(state, batch)

            self._run = compiled(run_batch, donate_argnums=0)

    def inputs(self, epoch: int, first_step: int) -> Iterator[tuple[int, Any]]:
        """The inputs of an epoch's dispatches.

        Args:
          epoch: counted from 0; it determines the order with the seed.
          first_step: the step in the epoch to begin with.

        Yields:
          The number of steps and what `run` takes.
        """
        order = self._order(epoch)
        step = first_step
        while step < self._steps_per_epoch:
            whole = step % self._chunk == 0 and step + self._chunk <= self._steps_per_epoch
            count = self._chunk if whole else 1
            indices = order[step : step + count] if count > 1 else order[step]
            batch: Any = indices if self.resident else self._gathered(indices)
            yield count, self._placement.distribute(batch, axis=indices.ndim - 1)
            step += count

    def _order(self, epoch: int) -> np.ndarray:
        """The indices of an epoch's examples, int32 (steps, B); what fills no batch is left out."""
        order = data.epoch_order(len(self._split), seed=self._seed, epoch=epoch)
        order = order[: self._steps_per_epoch * self._batch_size].astype(np.int32)
        return order.reshape(self._steps_per_epoch, self._batch_size)

    @cached_property
    def _on_device(self) -> Any:
        return self._placement.replicate(self._split.take(np.arange(len(self._split))))

    def run(self, state: TrainState, inputs: Any) -> tuple[TrainState, Report]:
        """Dispatches steps; `state` is donated."""
        return self._run(*self._before, state, inputs)

    def lower(self, state: TrainState, inputs: Any) -> jax.stages.Lowered:
        """The program that `run` dispatches, before it is compiled."""
        return self._run.lower(*self._before, state, inputs)

    def run_compiled(
        self, program: jax.stages.Compiled, state: TrainState, inputs: Any
    ) -> tuple[TrainState, Report]:
        """As `run`, by what `lower(...).compile()` gave."""
        return program(*self._before, state, inputs)

    @property
    def _before(self) -> tuple[Any, ...]:
        """What the program takes before the state."""
        return (self._on_device,) if self.resident else ()

    def _gathered(self, indices: np.ndarray) -> Any:
        host: dict[str, Any] = {"labels": self._split.labels[indices], "indices": indices}
        images: Any = _Images(self._split, indices)
        return Batch(images=images, **host)


class _Images:
    """Images of given examples, of which each part is read when it is asked for."""

    def __init__(self, split: data.Split, indices: np.ndarray) -> None:
        self._split, self._indices = split, indices
        self.shape = (*indices.shape, *split.image_shape)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        part = self._indices[index[: self._indices.ndim]]
        images, _ = self._split.take(part.reshape(-1))
        return images.reshape(*part.shape, *images.shape[1:])


def _fits(nbytes: int) -> bool:
    """Whether a split may stay on the device: a share of its memory, or 2 GiB of the host's."""
    stats = jax.local_devices()[0].memory_stats()
    if not stats:
        return nbytes <= _HOST_BYTES
    return nbytes <= _DEVICE_SHARE * stats["bytes_limit"]
