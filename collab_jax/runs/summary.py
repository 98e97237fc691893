"""What a run tells of itself: at its start, after an epoch, at its end."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collab_jax import data
from collab_jax.config import Config
from collab_jax.files.functions import is_own
from collab_jax.runs.display import device_names
from collab_jax.training.evaluation import Evaluation, Evaluator
from collab_jax.training.state import TrainState, count_parameters

__all__ = ["closing", "epoch_line", "evaluate", "opening"]


def opening(
    config: Config,
    run_dir: Path,
    dataset: data.Dataset,
    state: TrainState,
    *,
    terms: Sequence[str],
    resident: bool,
    steps_per_epoch: int,
    total_steps: int,
) -> dict[str, Any]:
    """What is trained on what and where, by name.

    Args:
      config: of the run.
      run_dir: the run directory.
      dataset: the config's.
      state: that the run begins or goes on with.
      terms: names of the objective's terms.
      resident: whether the training split is on the devices.
      steps_per_epoch: whole batches in the training split.
      total_steps: the length of the run.
    """
    parameters, heads = count_parameters(state.params), count_parameters(state.heads)
    splits = f"{len(dataset.train):,} train, {len(dataset.test):,} test"
    if dataset.validation is not None:
        splits += f", {len(dataset.validation):,} validation"
    place = "on the device" if resident else "read from the host"
    shape = " x ".join(map(str, dataset.train.image_shape))
    step = int(state.step)
    width = "" if is_own(config.model.name) else f", width {config.model.width:g}"
    return {
        "run directory": run_dir,
        "devices": device_names(),
        "data": f"{dataset.name}: {splits}, {shape}, {dataset.num_classes} classes, {place}",
        "model": f"{config.model.name}{width}, "
        f"{parameters:,} parameters ({heads:,} more in training)",
        "method": f"{config.method}: {', '.join(terms)}",
        "steps": f"{total_steps:,} of batch {config.batch_size} "
        f"({steps_per_epoch:,} an epoch, {config.epochs} epochs)"
        + (f", going on from {step:,}" if step else ""),
    }


def evaluate(
    evaluator: Evaluator, dataset: data.Dataset, variables: dict[str, Any]
) -> tuple[dict[str, Evaluation], list[dict[str, Any]]]:
    """Evaluates the validation split, where there is one, and the test split.

    Returns:
      What was found by split name, and each split's line for metrics.jsonl.
    """
    found, lines = {}, []
    for name in ("validation", "test"):
        split = getattr(dataset, name)
        if split is not None:
            began = time.monotonic()
            found[name], _ = evaluator(variables, split)
            rate = len(split) / (time.monotonic() - began)
            timing = {"images_per_second": rate, "wait_fraction": None}
            lines.append({"split": name, **vars(found[name]), **timing})
    return found, lines


def epoch_line(lines: Sequence[Mapping[str, Any]], epoch: int, epochs: int) -> str:
    """An epoch's metrics of all splits in a line, the training split's first; lines align."""
    train = lines[0]
    errors = "  ".join(f"{line['split']} error {line['top1_error']:5.2f}%" for line in lines)
    rate = train["images_per_second"]
    speed = "" if rate is None else f"  {rate:,.0f} images/s"
    skipped = train["skipped_steps"]
    note = f"  {skipped} steps skipped as not finite" if skipped else ""
    number = f"{epoch:>{len(str(epochs))}}/{epochs}"
    return f"epoch {number}  loss {train['loss']:.4f}  {errors}{speed}{note}"


def closing(result: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """The errors that a finished run ends with, by name."""
    rows = {
        name.replace("_", " "): f"{result[name]:.2f}%"
        for name in ("last_test_error", "best_test_error", "val_selected_test_error")
        if result[name] is not None
    }
    return {**rows, "seconds": f"{result['seconds']:.0f}", "written to": run_dir}
