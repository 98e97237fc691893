"""Training, from a config to a run directory."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax

from collab_jax import data
from collab_jax._version import __version__
from collab_jax.config import Config, check_against_data, with_file
from collab_jax.data import DataInfo
from collab_jax.errors import RunError
from collab_jax.runs import processes, summary
from collab_jax.runs.checkpoint import Checkpointer, Checkpoints, NoCheckpointer
from collab_jax.runs.clock import Clock, EpochTimer
from collab_jax.runs.directory import RESULT
from collab_jax.runs.display import Display, NoDisplay, TerminalDisplay, note
from collab_jax.runs.environment import check_determinism
from collab_jax.runs.faults import Faults
from collab_jax.runs.identity import check_record, check_run_content, stamp
from collab_jax.runs.made_with import made_with
from collab_jax.runs.metrics_log import Log, MetricsLog, NoLog
from collab_jax.runs.profiling import Profiler
from collab_jax.runs.result import final_result, new_record, update_record, write_result
from collab_jax.runs.signals import Interrupted, StopSignals
from collab_jax.runs.start import first_state, opened
from collab_jax.runs.streams import surviving_streams
from collab_jax.training.batches import Feed
from collab_jax.training.build import create_experiment, load_data, total_steps
from collab_jax.training.evaluation import Evaluator
from collab_jax.training.health import Health, guessing_error, not_learning
from collab_jax.training.placement import Placement, check_batch
from collab_jax.training.step import summarise

__all__ = ["Run", "run"]

_STEPS_PER_DISPATCH = 32
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


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
    run_dir, config = Path(workdir), with_file(config)
    with StopSignals() as signals, surviving_streams():
        if config.deterministic:
            check_determinism(jax.default_backend())
        check_batch(config.batch_size, jax.device_count())
        dataset = load_data(config)
        check_against_data(
            config, len(dataset.train), dataset.num_classes, tuple(dataset.train.image_shape)
        )
        chunk = 1 if jax.default_backend() == "cpu" else _STEPS_PER_DISPATCH
        with (
            opened(
                run_dir,
                config,
                resume=resume,
                steps_per_dispatch=chunk,
                check_data=lambda: check_run_content(
                    run_dir, config.data.name, dataset.fingerprint
                ),
            ) as (own, check_held),
            processes.watched(),
        ):
            return Run(own, run_dir, dataset, signals, check_held, profile).train()


class Run:
    """One training run, ready to be trained: it stands at the step that it goes on from.

    Args:
      config: valid, as the run directory holds it.
      run_dir: a directory that this process holds.
      dataset: the config's.
      signals: that stop the run.
      check_held: raises a RunError once the directory is gone.
      profile: see `run`.

    Attributes:
      state: after `step` steps; each step is given its arrays to overwrite.
      record: what is known of the run so far, and saved with each checkpoint.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        dataset: data.Dataset,
        signals: StopSignals,
        check_held: Callable[[], None],
        profile: tuple[int, int] | None = None,
    ) -> None:
        began = time.monotonic()
        self.config, self.run_dir, self.dataset, self.signals = config, run_dir, dataset, signals
        self.steps_per_epoch = len(dataset.train) // config.batch_size
        self.total_steps = total_steps(config, self.steps_per_epoch)
        self.profiler = Profiler(run_dir, profile, self.total_steps)
        self.placement = Placement()
        self.vote = processes.Vote(self.placement)
        info = DataInfo.of(dataset)
        experiment = create_experiment(config, info, self.steps_per_epoch)
        self.terms = [term.name for term in experiment.objective.terms]
        self.evaluator = Evaluator(experiment.model, info, config.eval_batch_size, self.placement)
        self.health = Health(experiment.model, info, dataset.train, self.placement)
        self.guessing_error = guessing_error(
            dataset.train.labels, info.num_classes, config.data.label_noise
        )
        self.feed = Feed(
            dataset.train,
            experiment.settings,
            self.placement,
            batch_size=config.batch_size,
            seed=config.seed,
            resident=config.data.resident,
            chunk=config.steps_per_dispatch,
        )
        self.compiled: set[int] = set()
        first = processes.is_first()
        self.checkpoints: Checkpoints = (
            Checkpointer(run_dir, partial(check_record, config=config))
            if first
            else NoCheckpointer()
        )
        self.faults = Faults(
            run_dir,
            check_held,
            self.checkpoints,
            self.terms,
            self.steps_per_epoch,
            skip=config.nonfinite == "skip",
        )
        with _collecting_seldom():
            state, record = first_state(
                experiment, config, info, self.checkpoints, len(dataset.train)
            )
        self.record = record or new_record(dataset.validation is not None)
        self.record.update(stamp(config, info))
        self.state = self.placement.replicate(state)
        self.step = self.first_step = int(state.step)
        if self.step < self.total_steps or "made_with" not in self.record:
            self.record["made_with"] = made_with()
        self.clock = Clock(began, self.record["seconds"], self.step)
        self.display: Display = NoDisplay()
        self.log: Log = NoLog()
        if first:
            self.display = TerminalDisplay(self.total_steps, self.step, bar=config.log.progress)
            with self.faults.writing("metrics"):
                self.log = MetricsLog(
                    run_dir,
                    self.step,
                    tensorboard=config.log.tensorboard and self.step < self.total_steps,
                    expected_lines=self.record.get("metrics_lines", 0),
                )

    def train(self) -> dict[str, Any]:
        """Trains to the end; returns, and raises, what the function `run` does."""
        rows = summary.opening(
            self.config,
            self.run_dir,
            self.dataset,
            self.state,
            terms=self.terms,
            resident=self.feed.resident,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=self.total_steps,
        )
        self.display.table("collab_jax " + __version__, rows)
        self.profiler.begin(self.step)
        try:
            self.display.start()
            self._stop_if_asked(self.vote.cast(self.signals.received))
            while self.step < self.total_steps:
                self._epoch()
        except BaseException:
            # What is being written is finished first; its own failure must not hide this one.
            with suppress(RunError):
                self.checkpoints.close()
            raise
        else:
            self.checkpoints.close()
        finally:
            self.profiler.close()
            self.display.stop()
            self.log.close()
        result = processes.share(self._finished)
        self.display.table("finished", summary.closing(result, self.run_dir))
        return result

    def _epoch(self) -> None:
        """Trains to the end of an epoch, or of the run."""
        epoch, offset = divmod(self.step, self.steps_per_epoch)
        timer = EpochTimer(self.config.batch_size)
        report: Any = None
        inputs = iter(self.feed.inputs(epoch, offset))
        epoch_end = min((epoch + 1) * self.steps_per_epoch, self.total_steps)
        while self.step < epoch_end:
            with timer.waiting(report):
                count, batch = next(inputs)
            previous, report = report, self._dispatch(count, batch, report, timer)
            if previous is not None:
                jax.block_until_ready(previous)
            if self.clock.due_display(self.config.log.every_seconds):
                text = note(epoch + 1, summarise(jax.device_get(report)), timer.images_per_second())
                self.display.update(self.step, text)
            asked = self.vote.cast(self.signals.received)
            if self.step < epoch_end and (asked or self._checkpoint_due()):
                self._save()
                self._stop_if_asked(asked)
        jax.block_until_ready(report)
        timer.stop()
        self._end_epoch(epoch + 1, jax.device_get(report), timer)
        asked = self.vote.cast(self.signals.received)
        if asked and self.clock.saved_step != self.step:
            self._save()
        self._stop_if_asked(asked)

    def _dispatch(self, count: int, batch: Any, previous: Any, timer: EpochTimer) -> Any:
        """Begins steps, which run on while the host prepares the next; the first are waited for."""
        compiles = count not in self.compiled
        with ExitStack() as stack:
            if compiles:
                jax.block_until_ready(previous)
                stack.enter_context(timer.left_out())
                stack.enter_context(self.display.first_step())
                stack.enter_context(_collecting_seldom())
            with self.profiler.step(self.step, count, previous):
                self.state, report = self.feed.run(self.state, batch)
            if compiles:
                jax.block_until_ready(report)
        self.compiled.add(count)
        self.step += count
        self.profiler.dispatched(self.step, report)
        timer.count(0 if compiles else count)
        return report

    def _end_epoch(self, epoch: int, sums: Any, timer: EpochTimer) -> None:
        """Evaluates, writes the epoch's lines, saves, and tells, in this order."""
        config = self.config
        self.faults.check_finite(self.state)
        means = summarise(sums)
        self.faults.check_counted(epoch, means["loss"])
        last = self.step == self.total_steps
        variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        lines = [{"split": "train", **means, **self.health(variables), **timer.figures()}]
        improved = False
        if last or epoch % config.eval_every == 0:
            evaluations, more = summary.evaluate(self.evaluator, self.dataset, variables)
            lines += more
            improved = update_record(self.record, evaluations, self.step, epoch, config.top5)
        lines = [{"step": self.step, "epoch": epoch, **line} for line in lines]
        with self.faults.writing("metrics"):
            for line in lines:
                self.log.write(line)
        every = config.checkpoint.every_epochs
        if improved or last or self._checkpoint_due() or (every and epoch % every == 0):
            self._save()
        self.display.update(self.step, note(epoch, means, timer.images_per_second()))
        self.display.line(summary.epoch_line(lines, epoch, config.epochs))
        began_at = (epoch - 1) * self.steps_per_epoch
        told = not_learning(config, lines[0], self.guessing_error, began_at)
        if told:
            self.display.line(told)

    def _checkpoint_due(self) -> bool:
        settings = self.config.checkpoint
        return self.clock.due_checkpoint(self.step, settings.every_steps, settings.every_minutes)

    def _save(self) -> None:
        """Starts to write a checkpoint; a RunError if the state is not finite."""
        self.faults.check_finite(self.state)
        self.faults.check_held()
        self.record["seconds"] = self.clock.total_seconds()
        self.record["metrics_lines"] = self.log.lines
        best = self.record["best"]
        self.checkpoints.save(self.step, self.state, self.record, best["step"] if best else None)
        self.clock.saved(self.step)

    def _stop_if_asked(self, asked: int) -> None:
        """Raises Interrupted if a signal (0: none) asked for it, once the checkpoint is whole."""
        if asked and self.step < self.total_steps:
            self.checkpoints.wait()
            raise Interrupted(asked, self.step, self.run_dir)

    def _finished(self) -> dict[str, Any]:
        trained = self.step > self.first_step
        seconds = self.clock.total_seconds() if trained else self.record["seconds"]
        result = final_result(self.config, self.record, seconds)
        with self.faults.writing(RESULT):
            return write_result(self.run_dir / RESULT, result, trained=trained)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """While JAX traces, which makes objects by the million that stay: an eighth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
