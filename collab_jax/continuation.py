"""A start from where another run stands, with other values than its own."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from collab_jax.checkpoint import checkpoint_dir, complete_steps, is_sound, read_checkpoint
from collab_jax.errors import RunError, UserError
from collab_jax.experiment import DataInfo, create_experiment, total_steps
from collab_jax.run_dir import read_config
from collab_jax.train_state import TrainState, create_train_state
from collab_jax.warm_start import check_shapes

__all__ = ["continued", "same_images_seen"]

# With another value of one of these, the run would have seen other images than it counts on.
_SAME = ("seed", "data.name", "data.train_examples", "data.validation")
_RESTORED = ("step", "params", "heads", "batch_stats", "opt_state", "sums")


def continued(state: TrainState, config: ConfigDict, num_train: int) -> TrainState:
    """Replaces the initial state by the last one of the run `config.continue_from`.

    With another batch size, steps are counted anew: as many as that batch size takes for the
    epochs, and the images of a begun epoch, that the run has seen. The optimizer's own count, which
    the learning rate is a function of, follows. The sums of a begun epoch, which are means over
    steps, begin anew.

    Args:
      state: before the first step.
      config: its `continue_from` is a run directory.
      num_train: images in the training split.

    Returns:
      The state to start from.

    Raises:
      UserError: if there is no such run, if its images, or its parameters' shapes, are not the
        config's, or if it has come further than the config goes.
    """
    source = Path(config.continue_from)
    where = f"continue_from {source}"
    try:
        old = read_config(source)
        for key in _SAME:
            if old[key] != config[key]:
                raise UserError(f"config.{key} = {config[key]!r}; expected {old[key]!r}, as there")
        saved = _read(source, old, state)
    except (UserError, RunError) as error:
        raise UserError(f"{where}: {error}") from error
    step = same_images_seen(int(saved["step"]), old.batch_size, config.batch_size, num_train)
    end = total_steps(config, num_train // config.batch_size)
    if step >= end:
        raise UserError(
            f"{where}: it has come to step {step} of batches of {config.batch_size}; expected "
            f"less than {end}, where config.epochs = {config.epochs} and config.steps = "
            f"{config.steps} end"
        )
    if old.batch_size != config.batch_size:
        saved["sums"] = state.sums
    number = jnp.asarray(step, jnp.int32)
    saved["opt_state"] = _counted(saved["opt_state"], number)
    return replace(state, **{**saved, "step": number})


def same_images_seen(step: int, old_batch: int, new_batch: int, num_train: int) -> int:
    """The step of one batch size at which a run has seen what it has seen at another's.

    Args:
      step: steps done in batches of `old_batch`.
      old_batch: training images in such a step.
      new_batch: training images in a step from now on.
      num_train: images in the training split; of each epoch, those that fill no batch are left out.

    Returns:
      Steps of `new_batch`: those of whole epochs, and of a begun epoch the largest number whose
      images are among those seen, which leaves at least one step of it to do.
    """
    per_epoch = num_train // new_batch
    epochs, begun = divmod(step, num_train // old_batch)
    return epochs * per_epoch + min(begun * old_batch // new_batch, per_epoch - 1)


def _read(source: Path, old: ConfigDict, state: TrainState) -> dict[str, Any]:
    directory = checkpoint_dir(source)
    sound = [step for step in complete_steps(directory) if is_sound(directory / str(step))]
    if not sound:
        raise UserError(f"{directory}: holds no sound checkpoint; expected one")

    def template(record: dict[str, Any]) -> dict[str, Any]:
        given = _abstract(old, DataInfo.from_json(record["data"]))
        check_shapes("its last checkpoint", _restored(given), _restored(state))
        return _restored(state)

    return read_checkpoint(directory, sound[-1], template)[0]


def _abstract(config: ConfigDict, info: DataInfo) -> TrainState:
    made = create_experiment(config, info, steps_per_epoch=1)
    create = partial(create_train_state, made.model, made.objective, made.optimizer)
    return jax.eval_shape(lambda: create(info.image_shape, config.seed))


def _restored(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in _RESTORED}


def _counted(opt_state: Any, number: jax.Array) -> Any:
    """The state of an optimizer that has done that number of steps."""

    def count(path: Any, leaf: Any) -> Any:
        return number if path and getattr(path[-1], "name", "") == "count" else leaf

    return jax.tree_util.tree_map_with_path(count, opt_state)
