"""Training, from a config to a run directory."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

from collab_jax import config as config_lib
from collab_jax import data
from collab_jax._version import __version__
from collab_jax.config import Config, check_against_data
from collab_jax.data import DataInfo
from collab_jax.errors import RunError
from collab_jax.runs import processes
from collab_jax.runs.checkpoint import Checkpointer, checkpoint_dir, complete_steps
from collab_jax.runs.clock import Clock, EpochTimer
from collab_jax.runs.directory import hold, open_config, write_json
from collab_jax.runs.display import Display, device_names
from collab_jax.runs.environment import check_determinism
from collab_jax.runs.metrics_log import MetricsLog
from collab_jax.runs.profiling import Profiler
from collab_jax.runs.result import git_revision, new_results, update_results, versions
from collab_jax.runs.signals import Interrupted, StopSignals
from collab_jax.runs.start import continued, warm_start
from collab_jax.training.batches import Feed
from collab_jax.training.build import Experiment, create_experiment, load_data, total_steps
from collab_jax.training.evaluation import Evaluator
from collab_jax.training.health import Health, guessing_error, not_learning
from collab_jax.training.placement import Placement, check_batch
from collab_jax.training.state import TrainState, create_train_state
from collab_jax.training.step import summarise

__all__ = ["Run", "open_run", "run"]

_STEPS_PER_DISPATCH = 32


def run(
    config: Config,
    workdir: str | os.PathLike[str],
    *,
    resume: bool = True,
    profile: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Trains a run, or goes on with it, to its end.

    Args:
      config: a valid config.
      workdir: the run directory.
      resume: whether a run that the directory holds may go on.
      profile: the first step, counted from 0 at the run's beginning, and the one after the last,
        of which a trace is written; None for no trace.

    Returns:
      The content of `result.json`.

    Raises:
      UserError: if the config, the data or the directory do not allow it.
      RunError: if the loss diverges, or the disk does not take a checkpoint or the metrics.
      Interrupted: after a signal, once a checkpoint is saved.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        opened = open_run(stack, signals, config, workdir, resume=resume)
        with processes.watched():
            return opened.train(profile)


def open_run(
    stack: ExitStack,
    signals: StopSignals,
    config: Config,
    workdir: str | os.PathLike[str],
    *,
    resume: bool = True,
    steps_per_dispatch: int = 0,
) -> "Run":
    """Loads a run's data and takes hold of its directory, as `run` does.

    Args:
      stack: lets go of the directory.
      signals: that stop the run.
      config: as for `run`.
      workdir: as for `run`.
      resume: as for `run`.
      steps_per_dispatch: of a new run whose config leaves it open; 0: what suits the device.

    Returns:
      The run, to be trained.

    Raises:
      UserError: as `run`.
    """
    if config.deterministic:
        check_determinism(jax.default_backend())
    check_batch(config.batch_size, jax.device_count())
    dataset = load_data(config)
    check_against_data(
        config, len(dataset.train), dataset.num_classes, tuple(dataset.train.image_shape)
    )
    run_dir = Path(workdir)
    chunk = 1 if jax.default_backend() == "cpu" else _STEPS_PER_DISPATCH
    check_held = [lambda: None]

    settled: list[Config] = []

    def opened() -> str:
        check_held[0] = stack.enter_context(hold(run_dir))
        own = open_config(
            run_dir, config, resume=resume, steps_per_dispatch=steps_per_dispatch or chunk
        )
        settled.append(own)
        return config_lib.to_json(own)

    text = processes.share(opened)
    # Every process but the first reads what the first one settled on.
    config = settled[0] if settled else config_lib.from_json(text, str(run_dir))
    return Run(config, run_dir, dataset, signals, check_held[0])


class Run:
    """One training run: what stays the same over it, and what its record says so far.

    Args:
      config: valid, as the run directory holds it.
      run_dir: a directory that this process holds.
      dataset: the config's.
      signals: that stop the run.
      check_held: raises a RunError once the directory is gone.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        dataset: data.Dataset,
        signals: StopSignals,
        check_held: Callable[[], None],
    ) -> None:
        self.config, self.run_dir, self.dataset, self.signals = config, run_dir, dataset, signals
        self.check_held = check_held
        self.info = DataInfo.of(dataset)
        self.steps_per_epoch = len(dataset.train) // config.batch_size
        self.total_steps = total_steps(config, self.steps_per_epoch)
        self.experiment: Experiment = create_experiment(config, self.info, self.steps_per_epoch)
        self.record: dict[str, Any] = {
            "data": self.info.to_json(),
            "best": None,
            "results": new_results(dataset.validation is not None),
            "seconds": 0.0,
            "metrics_lines": 0,
        }
        self.placement = Placement()
        self.vote = processes.Vote(self.placement)
        self.checkpointer: Any = processes.Silent()
        if processes.is_first():
            self.checkpointer = Checkpointer(run_dir)
        self.evaluator = Evaluator(
            self.experiment.model, self.info, config.eval_batch_size, self.placement
        )
        self.health = Health(self.experiment.model, self.info, dataset.train, self.placement)
        self.feed = Feed(
            dataset.train,
            self.experiment.settings,
            self.placement,
            batch_size=config.batch_size,
            seed=config.seed,
            resident=config.data.resident,
            chunk=config.steps_per_dispatch,
        )

    def train(self, profile: tuple[int, int] | None) -> dict[str, Any]:
        """Trains to the end; see the function `run`."""
        self.profiler = Profiler(self.run_dir, profile, self.total_steps)
        state = self.start()
        step = int(state.step)
        self.profiler.begin(step)
        try:
            self.stop_if_asked(step, self.vote.cast(self.signals.received))
            while step < self.total_steps:
                state, step = self._epoch(state, step)
        except BaseException:
            # What is being written is finished first; its own failure must not hide this one.
            with suppress(RunError):
                self.checkpointer.close()
            raise
        else:
            self.checkpointer.close()
        finally:
            self.profiler.close()
            self.display.stop()
            self.log.close()
        return self.finish()

    def start(self, display: Any = None) -> TrainState:
        """Restores or makes the first state, and opens what the run writes to.

        Args:
          display: one that is shown already; None for one of the run's own.

        Returns:
          The state to go on from, on the devices.
        """
        config, began = self.config, time.monotonic()
        state = self._initial_state()
        first_step = int(state.step)
        self.display: Any = display or processes.Silent()
        self.log: Any = processes.Silent()
        if processes.is_first():
            if display is None:
                self.display = Display(self.total_steps, first_step, bar=config.log.progress)
                self.display.table("collab_jax " + __version__, self._summary(state, first_step))
            with self._writing("metrics"):
                self.log = MetricsLog(
                    self.run_dir,
                    first_step,
                    tensorboard=config.log.tensorboard,
                    expected_lines=self.record.get("metrics_lines", 0),
                )
        self.clock = Clock(began, self.record["seconds"], first_step)
        self.display.start()
        return state

    def finish(self) -> dict[str, Any]:
        """Writes `result.json` and returns its content."""
        result = self._result()
        if processes.is_first():
            with self._writing("result.json"):
                write_json(self.run_dir / "result.json", result)
        self.display.table("finished", _closing(result, self.run_dir))
        return result

    def _initial_state(self) -> TrainState:
        experiment = self.experiment
        state = create_train_state(
            experiment.model,
            experiment.objective,
            experiment.optimizer,
            self.info.image_shape,
            self.config.seed,
        )

        def started() -> tuple[TrainState, dict[str, Any]]:
            self.checkpointer.remove_incomplete()
            if complete_steps(checkpoint_dir(self.run_dir)):
                _, *restored = self.checkpointer.restore(state)
                return restored[0], restored[1]
            if self.config.init_from:
                return warm_start(state, self.config, self.info), self.record
            if self.config.continue_from:
                return continued(state, self.config, len(self.dataset.train)), self.record
            return state, self.record

        state, self.record = processes.share_arrays(started, state)
        return self.placement.replicate(state)

    def _epoch(self, state: TrainState, step: int) -> tuple[TrainState, int]:
        """Trains to the end of an epoch, or of the run."""
        epoch, offset = divmod(step, self.steps_per_epoch)
        timer = EpochTimer()
        report = None
        inputs = iter(self.feed.inputs(epoch, offset))
        epoch_end = min((epoch + 1) * self.steps_per_epoch, self.total_steps)
        while step < epoch_end:
            with timer.waiting(report):
                count, batch = next(inputs)
            previous = report
            with self.profiler.step(step, count, previous):
                state, report = self.feed.run(state, batch)
            step += count
            self.profiler.dispatched(step, report)
            timer.steps += count
            if previous is not None:
                jax.block_until_ready(previous)
            if self.clock.due_display(self.config.log.every_seconds):
                sums = jax.device_get(report)
                rate = timer.steps * self.config.batch_size / timer.seconds()
                self.display.update(step, epoch + 1, summarise(sums), rate)
            asked = self.vote.cast(self.signals.received)
            if step < epoch_end and (asked or self.checkpoint_due(step)):
                self.save(state, step)
                self.stop_if_asked(step, asked)
        jax.block_until_ready(report)
        timer.stop()
        self.end_epoch(state, step, epoch + 1, jax.device_get(report), timer)
        asked = self.vote.cast(self.signals.received)
        if asked and self.clock.saved_step != step:
            self.save(state, step)
        self.stop_if_asked(step, asked)
        return state, step

    def end_epoch(
        self, state: TrainState, step: int, epoch: int, sums: Any, timer: EpochTimer
    ) -> None:
        """Evaluates, writes the epoch's lines and saves, in this order."""
        config = self.config
        self._check_finite(state)
        last = step == self.total_steps
        means = summarise(sums)
        timing = {
            "images_per_second": timer.steps * config.batch_size / timer.seconds(),
            "wait_fraction": timer.wait_fraction(),
        }
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        health = self.health(variables)
        lines = [{"step": step, "epoch": epoch, "split": "train", **means, **health, **timing}]
        improved = False
        if last or epoch % config.eval_every == 0:
            evaluations = {}
            for name in ("validation", "test"):
                split = getattr(self.dataset, name)
                if split is not None:
                    began = time.monotonic()
                    evaluations[name], _ = self.evaluator(variables, split)
                    rate = len(split) / (time.monotonic() - began)
                    lines.append(
                        {
                            "step": step,
                            "epoch": epoch,
                            "split": name,
                            **vars(evaluations[name]),
                            "images_per_second": rate,
                            "wait_fraction": None,
                        }
                    )
            update_results(self.record["results"], evaluations, epoch, config.top5)
            chosen = evaluations.get("validation", evaluations["test"]).headline(config.top5)
            improved = self.record["best"] is None or chosen <= self.record["best"]["error"]
            if improved:
                self.record["best"] = {"step": step, "epoch": epoch, "error": chosen}
        with self._writing("metrics"):
            for line in lines:
                self.log.write(line)
        self.display.update(step, epoch, means, timing["images_per_second"])
        self.display.line(_epoch_line(lines, epoch, config.epochs))
        self._warn_if_not_learning(lines[0], epoch)
        every = config.checkpoint.every_epochs
        if improved or last or self.checkpoint_due(step) or (every and epoch % every == 0):
            self.save(state, step)

    def _warn_if_not_learning(self, line: dict[str, Any], epoch: int) -> None:
        guessing = guessing_error(
            self.dataset.train.labels, self.info.num_classes, self.config.data.label_noise
        )
        told = not_learning(self.config, line, guessing, (epoch - 1) * self.steps_per_epoch)
        if told:
            self.display.line(told)

    def checkpoint_due(self, step: int) -> bool:
        """Whether one is due by the number of steps or the time since the last."""
        settings = self.config.checkpoint
        # A dispatch of several steps can pass over a multiple: it is due at the next boundary.
        passed = step // max(settings.every_steps, 1) > self.clock.saved_step // max(
            settings.every_steps, 1
        )
        return (settings.every_steps > 0 and passed) or self.clock.due_checkpoint(
            settings.every_minutes
        )

    def save(self, state: TrainState, step: int) -> None:
        """Starts to write a checkpoint; a RunError if the state is not finite."""
        self._check_finite(state)
        self.check_held()
        self.record["seconds"] = self.clock.total_seconds()
        self.record["metrics_lines"] = self.log.lines
        best = self.record["best"]
        self.checkpointer.save(step, state, self.record, best["step"] if best else None)
        self.clock.saved(step)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """One line that says what is kept, for whatever the disk refuses."""
        self.check_held()
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.run_dir}: {what} could not be written ({error.strerror or error}). "
                f"{self._kept()}"
            ) from error

    def _kept(self) -> str:
        kept = complete_steps(checkpoint_dir(self.run_dir))
        return f"The last checkpoint kept is {f'step {kept[-1]}' if kept else 'none'}"

    def _check_finite(self, state: TrainState) -> None:
        fault = jax.device_get(state.fault)
        if fault["step"] < 0 or self.config.nonfinite == "skip":
            return
        step = int(fault["step"])
        terms = [
            term.name
            for term, bad in zip(self.experiment.objective.terms, fault["terms"], strict=True)
            if bad
        ]
        paths = jax.tree_util.tree_leaves_with_path({"": state.params, "heads": state.heads})
        gradients = [
            "/".join(str(key.key) for key in path if key.key)
            for (path, _), bad in zip(paths, fault["gradients"], strict=True)
            if bad
        ]
        where = [f"term {', '.join(terms)}"] if terms else []
        if gradients:
            rest = f" and {len(gradients) - 1} more" if len(gradients) > 1 else ""
            where.append(f"gradient of {gradients[0]}{rest}")
        raise RunError(
            f"not finite at step {step} (epoch {step // self.steps_per_epoch + 1}): "
            f"{'; '.join(where)}. {self._kept()}; a lower learning_rate, or "
            "--config.nonfinite=skip, may help"
        )

    def stop_if_asked(self, step: int, asked: int) -> None:
        """Raises Interrupted if a signal (0: none) asked for it, once the checkpoint is whole."""
        if asked and step < self.total_steps:
            self.checkpointer.wait()
            raise Interrupted(asked, step, self.run_dir)

    def _summary(self, state: TrainState, step: int) -> dict[str, Any]:
        config, dataset = self.config, self.dataset
        parameters, heads = (
            sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.params, state.heads)
        )
        splits = f"{len(dataset.train):,} train, {len(dataset.test):,} test"
        if dataset.validation is not None:
            splits += f", {len(dataset.validation):,} validation"
        place = "on the device" if self.feed.resident else "read from the host"
        shape = " x ".join(map(str, self.info.image_shape))
        return {
            "run directory": self.run_dir,
            "devices": device_names(),
            "data": f"{dataset.name}: {splits}, {shape}, {dataset.num_classes} classes, {place}",
            "model": f"{config.model.name}, width {config.model.width:g}, "
            f"{parameters:,} parameters ({heads:,} more in training)",
            "method": f"{config.method}: "
            + ", ".join(term.name for term in self.experiment.objective.terms),
            "steps": f"{self.total_steps:,} of batch {config.batch_size} "
            f"({self.steps_per_epoch:,} an epoch, {config.epochs} epochs)"
            + (f", going on from {step:,}" if step else ""),
        }

    def _result(self) -> dict[str, Any]:
        return {
            **self.record["results"],
            "best_checkpoint": self.record["best"],
            "method": self.config.method,
            "seed": self.config.seed,
            "seconds": self.clock.total_seconds(),
            "versions": versions(),
            "git_revision": git_revision(),
        }


def _epoch_line(lines: list[dict[str, Any]], epoch: int, epochs: int) -> str:
    errors = "  ".join(f"{line['split']} error {line['top1_error']:.2f}%" for line in lines)
    rate = f"{lines[0]['images_per_second']:,.0f} images/s"
    skipped = lines[0]["skipped_steps"]
    note = f"  {skipped} steps skipped as not finite" if skipped else ""
    return f"epoch {epoch}/{epochs}  loss {lines[0]['loss']:.4f}  {errors}  {rate}{note}"


def _closing(result: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    rows = {
        name.replace("_", " "): f"{result[name]:.2f}%"
        for name in ("last_test_error", "best_test_error", "val_selected_test_error")
        if result[name] is not None
    }
    return {**rows, "seconds": f"{result['seconds']:.0f}", "written to": run_dir}
