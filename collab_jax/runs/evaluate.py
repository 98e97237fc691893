"""Evaluates a run's checkpoint, and writes what it found beside the run."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from collab_jax.data import DataInfo
from collab_jax.errors import UserError
from collab_jax.files.atomic import write_json
from collab_jax.files.functions import is_own
from collab_jax.runs.diagnostics import diagnose
from collab_jax.runs.load import load_run
from collab_jax.training.build import load_data
from collab_jax.training.evaluation import Evaluator
from collab_jax.training.placement import Placement

__all__ = ["run"]


def run(
    workdir: str | os.PathLike[str], *, checkpoint: str = "best", config: Any = None
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run on its test split.

    Writes `evaluation-CHECKPOINT/` in the run directory: `result.json`, `predictions.npz` (logits,
    predictions, labels), `confusion_matrix.csv` (rows: true class, columns: predicted class) and
    `diagnostics.npz`, see `collab_jax.runs.diagnostics.diagnose`, for our own networks.

    Args:
      workdir: the run directory.
      checkpoint: best, last or a step.
      config: a config with other `data.dir`, `data.manual_dir` or `eval_batch_size`; None for the
        run's own.

    Returns:
      The content of `result.json`: errors in %, loss, and the error of each class.

    Raises:
      UserError: if the directory holds no run, or no such checkpoint.
    """
    run_dir = Path(workdir)
    restored = load_run(run_dir, checkpoint)
    config = config or restored.config
    dataset = load_data(config)
    if DataInfo.of(dataset) != restored.info:
        raise UserError(
            f"data.name {config.data.name!r}: its classes, image shape or statistics are not those "
            f"that the run in {run_dir} was trained on"
        )
    placement = Placement()
    evaluator = Evaluator(restored.model, restored.info, config.eval_batch_size, placement)
    variables = placement.replicate(restored.variables)
    evaluation, logits = evaluator(variables, dataset.test, keep_logits=True)
    assert logits is not None
    _, labels = dataset.test.take(np.arange(len(dataset.test)))
    predictions = logits.argmax(axis=1)
    names = restored.info.class_names
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    counts = confusion.sum(axis=1)
    result = {
        "checkpoint": checkpoint,
        "step": restored.step,
        "split": "test",
        "images": len(labels),
        "loss": evaluation.loss,
        "top1_error": evaluation.top1_error,
        "top5_error": evaluation.top5_error,
        "class_error": {
            name: 100.0 * float(1 - confusion[i, i] / counts[i]) if counts[i] else None
            for i, name in enumerate(names)
        },
    }
    folder = run_dir / f"evaluation-{checkpoint}"
    folder.mkdir(exist_ok=True)
    np.savez(folder / "predictions.npz", logits=logits, predictions=predictions, labels=labels)
    with (folder / "confusion_matrix.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["true class", *names])
        writer.writerows([name, *row] for name, row in zip(names, confusion.tolist(), strict=True))
    if not is_own(restored.config.model.name):
        found = diagnose(restored.config, restored.info, dataset.test, restored.variables)
        np.savez_compressed(folder / "diagnostics.npz", allow_pickle=False, **found)
    write_json(folder / "result.json", result)
    return result
