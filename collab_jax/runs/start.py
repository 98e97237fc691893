"""Where a run starts: another run's weights or PyTorch's, or where another run stands."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from collab_jax import config as config_lib
from collab_jax.config import Config
from collab_jax.data import DataInfo
from collab_jax.errors import RunError, UserError, reason
from collab_jax.models import from_torch
from collab_jax.runs import processes
from collab_jax.runs.checkpoint import Checkpoints, checkpoint_dir, complete_steps, read_checkpoint
from collab_jax.runs.directory import hold, open_config, read_config
from collab_jax.runs.identity import check_record, check_run_content
from collab_jax.runs.load import load
from collab_jax.runs.manifest import is_sound
from collab_jax.training.build import Experiment, create_experiment, total_steps
from collab_jax.training.state import TrainState, create_train_state

__all__ = ["check_shapes", "continued", "first_state", "opened", "same_images_seen", "warm_start"]

# With another value of one of these, the run would have seen other images than it counts on.
_SAME = ("seed", "data.train_examples", "data.validation")
_RESTORED = ("step", "params", "heads", "batch_stats", "opt_state", "sums")


@contextmanager
def opened(
    run_dir: Path,
    config: Config,
    *,
    resume: bool,
    steps_per_dispatch: int,
    check_data: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Config, Callable[[], None]]]:
    """Holds a run directory and opens its config, as the first of a run's processes does alone.

    Args:
      run_dir: the run directory.
      config: as for `open_config`.
      resume: as for `open_config`.
      steps_per_dispatch: as for `open_config`.
      check_data: as for `open_config`.

    Yields:
      The run's config, in every process, and what `hold` yields.

    Raises:
      UserError, RunError: in every process, as `hold` and `open_config`.
    """
    with ExitStack() as stack:
        check_held: list[Callable[[], None]] = []
        settled: list[Config] = []

        def own() -> str:
            check_held.append(stack.enter_context(hold(run_dir)))
            found = open_config(
                run_dir,
                config,
                resume=resume,
                steps_per_dispatch=steps_per_dispatch,
                check_data=check_data,
            )
            settled.append(found)
            return config_lib.to_json(found)

        text = processes.share(own)
        # Every process but the first reads what the first one settled on.
        of_run = settled[0] if settled else config_lib.from_json(text, str(run_dir))
        yield of_run, check_held[0] if check_held else lambda: None


def first_state(
    experiment: Experiment,
    config: Config,
    info: DataInfo,
    checkpoints: Checkpoints,
    num_train: int,
) -> tuple[TrainState, dict[str, Any] | None]:
    """The state that a run begins or goes on with, equal in all its processes.

    Args:
      experiment: the parts of the run.
      config: of the run.
      info: of the data set.
      checkpoints: of the run.
      num_train: images in the training split.

    Returns:
      The state, and the record saved with it; None for a run that begins.

    Raises:
      UserError: if what the config starts from does not fit.
      RunError: if every checkpoint is damaged.
    """
    state = create_train_state(
        experiment.model,
        experiment.objective,
        experiment.optimizer,
        info.image_shape,
        config.seed,
    )

    def made() -> tuple[TrainState, dict[str, Any] | None]:
        if (resumed := checkpoints.resume(state)) is not None:
            return resumed
        if config.init_from:
            return warm_start(state, config, info), None
        if config.continue_from:
            return continued(state, config, num_train, info.fingerprint), None
        return state, None

    return processes.share_arrays(made, state)


def warm_start(state: TrainState, config: Config, info: DataInfo) -> TrainState:
    """Replaces the initial parameters and statistics by those of `config.init_from`.

    A last classifier layer of another number of classes is left as it was initialised.

    Args:
      state: before the first step.
      config: its `init_from` is a run directory (its best checkpoint is used), or a PyTorch state
        dict: .npz, or .pt or .pth where PyTorch is installed.
      info: of the data set.

    Returns:
      The state to start from.

    Raises:
      UserError: if the source cannot be read or its shapes are not the model's.
    """
    source = Path(config.init_from)
    if source.is_dir():
        try:
            variables = load(source).variables
        except RunError as error:
            # This run's mistake: nothing of it has begun.
            raise UserError(f"init_from {source}: {error}") from error
    elif source.is_file():
        try:
            _, variables = from_torch(config.model.name, _read_state_dict(source))
        except UserError:
            raise
        except (ValueError, TypeError) as error:
            raise UserError(f"init_from {source}: {error}") from error
    else:
        raise UserError(f"init_from {source}: not found; expected a run directory or a file")
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    trees = (variables["params"], state.params)
    last, own = (tree.get("classifier", {}).get("fc3") for tree in trees)
    if last and own and last["bias"].shape != (info.num_classes,):
        variables["params"]["classifier"]["fc3"] = own
    check_shapes(f"init_from {source}", variables, fresh)
    return replace(state, params=variables["params"], batch_stats=variables["batch_stats"])


def check_shapes(source: str, given: Any, wanted: Any) -> None:
    """Compares trees of arrays, or of their shapes.

    Raises:
      UserError: with `source`, the first path where they differ, and both shapes there.
    """
    found, expected = _shapes(given), _shapes(wanted)
    for path in expected | found:
        if expected.get(path) != found.get(path):
            raise UserError(
                f"{source}: {path} has shape {found.get(path)}; expected {expected.get(path)} for "
                "the config's model and method"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves
    }


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".npz":
        # Opened here, as NumPy leaves a damaged file open.
        with _reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix not in (".pt", ".pth"):
        raise UserError(f"init_from {path}: expected a run directory or a .pt, .pth or .npz file")
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"init_from {path}: reading it takes PyTorch (pip install torch); or save the state "
            "dict's arrays with numpy.savez"
        ) from error
    with _reading(path):
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state_dict, Mapping):
        raise UserError(
            f"init_from {path}: holds a {type(state_dict).__name__}; expected a state dict"
        )
    return state_dict


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UserError(
            f"init_from {path}: cannot be read ({reason(error)}); expected arrays without pickled "
            "objects"
        ) from error


def continued(state: TrainState, config: Config, num_train: int, fingerprint: str) -> TrainState:
    """Replaces the initial state by the last one of the run `config.continue_from`.

    With another batch size, steps are counted anew: as many as that batch size takes for the
    epochs, and the images of a begun epoch, that the run has seen. The optimizer's own count, which
    the learning rate is a function of, follows. The sums of a begun epoch, which are means over
    steps, begin anew.

    Args:
      state: before the first step.
      config: its `continue_from` is a run directory.
      num_train: images in the training split.
      fingerprint: of the config's data.

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
        known = check_run_content(source, config.data.name, fingerprint)
        for key in _SAME if known else (*_SAME, "data.name"):
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


def _read(source: Path, old: Config, state: TrainState) -> dict[str, Any]:
    directory = checkpoint_dir(source)
    sound = [step for step in complete_steps(directory) if is_sound(directory / str(step))]
    if not sound:
        raise UserError(f"{directory}: holds no sound checkpoint; expected one")

    def template(record: dict[str, Any]) -> dict[str, Any]:
        check_record(directory / str(sound[-1]), record, old)
        given = _abstract(old, DataInfo.from_json(record["data"]))
        check_shapes("its last checkpoint", _restored(given), _restored(state))
        return _restored(state)

    return read_checkpoint(directory, sound[-1], template)[0]


def _abstract(config: Config, info: DataInfo) -> TrainState:
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
