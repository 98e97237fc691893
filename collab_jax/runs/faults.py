"""Errors that end a run, each in a line that says what is kept."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from collab_jax.errors import RunError
from collab_jax.runs.checkpoint import Checkpoints, checkpoint_dir, complete_steps
from collab_jax.training.health import not_finite
from collab_jax.training.state import TrainState

__all__ = ["Faults"]


class Faults:
    """Raises the errors of a run.

    Args:
      run_dir: the run directory.
      check_held: raises a RunError once the directory is gone.
      checkpoints: of the run.
      terms: names of the objective's terms.
      steps_per_epoch: whole batches in the training split.
      skip: whether steps that are not finite are skipped.
    """

    def __init__(
        self,
        run_dir: Path,
        check_held: Callable[[], None],
        checkpoints: Checkpoints,
        terms: Sequence[str],
        steps_per_epoch: int,
        *,
        skip: bool,
    ) -> None:
        self._run_dir, self.check_held, self._checkpoints = run_dir, check_held, checkpoints
        self._terms, self._steps_per_epoch, self._skip = terms, steps_per_epoch, skip

    def check_finite(self, state: TrainState) -> None:
        """Raises a RunError if a step's loss or gradient was not finite, and none are skipped."""
        fault = None if self._skip else not_finite(state, self._terms)
        if fault is not None:
            step, where = fault
            raise RunError(
                f"not finite at step {step} (epoch {step // self._steps_per_epoch + 1}): {where}. "
                f"{self._kept()}; a lower learning_rate, or --config.nonfinite=skip, may help"
            )

    def check_counted(self, epoch: int, loss: float | None) -> None:
        """Raises a RunError for an epoch without a mean loss, as all its steps were skipped."""
        if loss is None:
            raise RunError(
                f"not one step of epoch {epoch} was finite, and all were skipped. {self._kept()}; "
                "a lower learning_rate may help"
            )

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Around the writing of a file: a RunError for whatever the disk refuses."""
        self.check_held()
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self._run_dir}: {what} could not be written ({error.strerror or error}). "
                f"{self._kept()}"
            ) from error

    def _kept(self) -> str:
        # One that is being written counts once it is whole; its failure must not hide this one.
        with suppress(RunError):
            self._checkpoints.wait()
        kept = complete_steps(checkpoint_dir(self._run_dir))
        return f"The last checkpoint kept is {f'step {kept[-1]}' if kept else 'none'}"
