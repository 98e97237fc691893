"""Several seeds of one recipe trained at once, in one program, for models that leave a GPU idle."""

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from collab_jax._version import __version__
from collab_jax.config import Config
from collab_jax.errors import RunError, UserError
from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps, remove_later
from collab_jax.runs.clock import EpochTimer
from collab_jax.runs.display import Display
from collab_jax.runs.loop import Run, open_run
from collab_jax.runs.manifest import is_sound
from collab_jax.runs.signals import Interrupted, StopSignals
from collab_jax.training.batches import Feed
from collab_jax.training.state import Batch, TrainState
from collab_jax.training.step import StepSettings, train_step

__all__ = ["SeedsStep", "run"]


class SeedsStep:
    """One train step of several seeds: `train_step` under `vmap`.

    Args:
      settings: of the step of each seed; they differ in the data's statistics at most.
      feeds: of each seed; their images are put on the devices.
    """

    def __init__(self, settings: Sequence[StepSettings], feeds: Sequence[Feed]) -> None:
        self._placement = feeds[0].placement
        images, labels = zip(*(feed.all_examples() for feed in feeds), strict=True)
        statistics = [(one.mean, one.std) for one in settings]
        self._constants = self._placement.replicate(
            (
                (np.stack(images), np.stack(labels)),
                jax.tree.map(lambda *leaves: np.stack(leaves), *statistics),
            )
        )

        def step(arrays: Any, statistics: Any, state: TrainState, indices: jax.Array):
            images, labels = (a.at[indices].get(mode="promise_in_bounds") for a in arrays)
            mean, std = statistics
            own = dataclasses.replace(settings[0], mean=mean, std=std)
            return train_step(own, state, Batch(images=images, labels=labels, indices=indices))

        jitted = jax.jit(jax.vmap(step), donate_argnums=2, out_shardings=self._placement.everywhere)
        self._run = partial(jitted, *self._constants)

    def __call__(self, state: TrainState, indices: np.ndarray) -> tuple[TrainState, Any]:
        """Runs a step; the state, which is donated, and indices (S, B) have an axis of seeds."""
        return self._run(state, self._placement.distribute(indices, axis=1))


def run(
    configs: Sequence[Config], workdirs: Sequence[Path], *, resume: bool = True
) -> list[dict[str, Any]]:
    """Trains runs that differ in their seed alone, or goes on with them, to their end.

    Each has a run directory of its own, which holds what its solo run writes, and each goes on
    alone as well. Only their last bits differ from those of a solo run.

    Args:
      configs: valid configs.
      workdirs: their run directories.
      resume: whether runs that the directories hold may go on.

    Returns:
      The contents of their `result.json`.

    Raises:
      UserError: if the configs differ in more than the seed, or as `train.run`.
      RunError: if any seed's loss diverges, or as `train.run`.
      Interrupted: after a signal, once all checkpoints are saved.
    """
    _check(configs)
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        runs = [
            open_run(stack, signals, config, workdir, resume=resume, steps_per_dispatch=1)
            for config, workdir in zip(configs, workdirs, strict=True)
        ]
        return _train(runs, signals)


def _check(configs: Sequence[Config]) -> None:
    if jax.process_count() > 1:
        raise UserError("--seeds: expected one process, got several")
    first = asdict(configs[0])
    seeds = [config.seed for config in configs]
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {','.join(map(str, seeds))}: expected each seed once")
    for config in configs:
        if config.steps_per_dispatch > 1:
            raise UserError(
                f"config.steps_per_dispatch = {config.steps_per_dispatch}: expected 0 or 1 with "
                "--seeds"
            )
        if config.data.resident == "never":
            raise UserError("config.data.resident = 'never': expected auto or always with --seeds")
        if {**asdict(config), "seed": 0} != {**first, "seed": 0}:
            raise UserError("seeds: expected configs that differ in their seed alone")


def _train(runs: Sequence[Run], signals: StopSignals) -> list[dict[str, Any]]:
    first = runs[0]
    _bring_level(runs)
    display = Display(first.total_steps, 0, bar=first.config.log.progress)
    states = [run.start(_OfSeed(display, run.config.seed)) for run in runs]
    display.start()
    try:
        (number,) = {int(state.step) for state in states}
        display.table(
            f"collab_jax {__version__}, {len(runs)} seeds in one program",
            {f"seed {run.config.seed}": run.run_dir for run in runs},
        )
        step = SeedsStep([run.experiment.settings for run in runs], [run.feed for run in runs])
        state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        del states
        while number < first.total_steps:
            state, number = _epoch(runs, step, state, number, signals)
    except BaseException:
        for run in runs:
            with suppress(RunError):
                run.checkpointer.close()
        raise
    else:
        for run in runs:
            run.checkpointer.close()
    finally:
        display.stop()
        for run in runs:
            run.log.close()
    return [run.finish() for run in runs]


def _bring_level(runs: Sequence[Run]) -> None:
    """Takes back the last checkpoint of those seeds that wrote it before a kill cut off the others.

    Raises:
      UserError: if the runs stand further apart than one checkpoint, or one of them is finished.
    """
    directories = [checkpoint_dir(run.run_dir) for run in runs]
    complete = [
        {step for step in complete_steps(directory) if is_sound(directory / str(step))}
        for directory in directories
    ]
    latest = [max(steps, default=0) for steps in complete]
    if len(set(latest)) == 1:
        return
    # A run's first checkpoint has none before it but its beginning.
    common = set.intersection(*(steps if len(steps) > 1 else steps | {0} for steps in complete))
    finished = any((run.run_dir / "result.json").exists() for run in runs)
    if finished or not common:
        raise UserError(
            f"--seeds: the runs stand at steps {', '.join(map(str, latest))}; expected one and the "
            "same. Train those behind alone first"
        )
    for directory in directories:
        remove_later(directory, max(common))


def _epoch(
    runs: Sequence[Run], step: SeedsStep, state: TrainState, number: int, signals: StopSignals
) -> tuple[TrainState, int]:
    first = runs[0]
    epoch, offset = divmod(number, first.steps_per_epoch)
    epoch_end = min((epoch + 1) * first.steps_per_epoch, first.total_steps)
    orders = [run.feed.order(epoch) for run in runs]
    timer = EpochTimer()
    report: Any = None
    while number < epoch_end:
        with timer.waiting(report):
            indices = np.stack([order[offset] for order in orders])
        previous = report
        state, report = step(state, indices)
        number, offset, timer.steps = number + 1, offset + 1, timer.steps + 1
        if previous is not None:
            jax.block_until_ready(previous)
        asked = signals.received
        if number < epoch_end and (asked or first.checkpoint_due(number)):
            for run, own in zip(runs, _apart(state, len(runs)), strict=True):
                run.save(own, number)
            _stop_if_asked(runs, number, asked)
    asked = signals.received
    own_sums = _apart(jax.device_get(report), len(runs))
    timer.stop()
    for run, own, sums in zip(runs, _apart(state, len(runs)), own_sums, strict=True):
        run.end_epoch(own, number, epoch + 1, sums, timer)
        if asked and run.clock.saved_step != number:
            run.save(own, number)
    _stop_if_asked(runs, number, asked)
    return state, number


def _stop_if_asked(runs: Sequence[Run], number: int, asked: int) -> None:
    stopped: Interrupted | None = None
    for run in runs:
        try:
            run.stop_if_asked(number, asked)
        except Interrupted as error:
            stopped = error
    if stopped is not None:
        raise stopped


def _apart(tree: Any, count: int) -> list[Any]:
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


class _OfSeed:
    """A display that several runs share; what one of them says begins with its seed."""

    def __init__(self, display: Display, seed: int) -> None:
        self._display, self._seed = display, seed

    def start(self) -> None:
        """The display is started by all together."""

    def table(self, title: str, rows: dict[str, Any]) -> None:
        self._display.table(f"seed {self._seed}: {title}", rows)

    def update(self, step: int, epoch: int, metrics: dict[str, float], rate: float) -> None:
        self._display.update(step, epoch, metrics, rate)

    def line(self, text: str) -> None:
        self._display.line(f"seed {self._seed}  {text}")
