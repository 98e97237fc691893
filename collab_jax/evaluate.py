"""Evaluation: every image once, in one program that has no training-time parts."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from collab_jax import data, losses
from collab_jax.diagnostics import diagnose
from collab_jax.errors import UserError
from collab_jax.experiment import DataInfo, load_data
from collab_jax.mesh import Placement
from collab_jax.restore import load_run
from collab_jax.run_dir import write_json
from collab_jax.step import count_wrong

__all__ = ["Evaluation", "Evaluator", "eval_step", "run"]


@dataclass(frozen=True)
class Evaluation:
    """The result over a split: mean cross-entropy and errors in %."""

    loss: float
    top1_error: float
    top5_error: float

    def headline(self, top5: bool) -> float:
        """The error that a data set is judged by."""
        return self.top5_error if top5 else self.top1_error


def eval_step(
    model: nn.Module,
    variables: dict[str, Any],
    inputs: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Sums over the images that are not padding, and all logits.

    Args:
      model: the network.
      variables: `params` and `batch_stats`.
      inputs: normalised images (B, H, W, C).
      labels: int (B,).
      mask: bool (B,), False for padding.

    Returns:
      `loss`, `top1_wrong` and `top5_wrong`, summed, and the logits (B, m).
    """
    logits: Any = model.apply(variables, inputs)
    each = {
        "loss": losses.hard_loss(logits, labels),
        "top1_wrong": count_wrong(logits, labels, 1),
        "top5_wrong": count_wrong(logits, labels, 5),
    }
    return {name: jnp.where(mask, value, 0.0).sum() for name, value in each.items()}, logits


class Evaluator:
    """Evaluates variables on splits of one data set, in one compiled program.

    Args:
      model: the network.
      info: of the data set.
      batch_size: images in a step, rounded up to a multiple of the number of devices; the last
        batch is padded.
      placement: of the variables.
    """

    def __init__(
        self, model: nn.Module, info: DataInfo, batch_size: int, placement: Placement
    ) -> None:
        def step(variables: Any, images: jax.Array, labels: jax.Array, mask: jax.Array):
            return eval_step(model, variables, info.normalise(images), labels, mask)

        self._placement = placement
        self._step = jax.jit(step, out_shardings=placement.everywhere)
        self._batch_size = -(-batch_size // placement.devices) * placement.devices

    def __call__(
        self, variables: dict[str, Any], split: data.Split, *, keep_logits: bool = False
    ) -> tuple[Evaluation, np.ndarray | None]:
        """Evaluates one split.

        Args:
          variables: `params` and `batch_stats`.
          split: images and labels.
          keep_logits: whether to return the logits too.

        Returns:
          The result and, if asked for, logits (N, m).
        """
        reports, logits = [], []
        for start in range(0, len(split), self._batch_size):
            indices = np.arange(start, min(start + self._batch_size, len(split)))
            images, labels = split.take(indices)
            padding = self._batch_size - len(indices)
            images = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
            labels = np.pad(labels, (0, padding))
            mask = np.arange(self._batch_size) < len(indices)
            batch = self._placement.distribute((images, labels, mask))
            sums, batch_logits = self._step(variables, *batch)
            reports.append(sums)
            if keep_logits:
                logits.append(np.asarray(batch_logits)[: len(indices)])
        totals = jax.tree.map(
            lambda *values: float(np.sum(np.array(values, np.float64))), *jax.device_get(reports)
        )
        result = Evaluation(
            loss=totals["loss"] / len(split),
            top1_error=100.0 * totals["top1_wrong"] / len(split),
            top5_error=100.0 * totals["top5_wrong"] / len(split),
        )
        return result, np.concatenate(logits) if keep_logits else None


def run(
    workdir: str | os.PathLike[str], *, checkpoint: str = "best", config: Any = None
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run on its test split.

    Writes `evaluation-CHECKPOINT/` in the run directory: `result.json`, `predictions.npz` (logits,
    predictions, labels), `confusion_matrix.csv` (rows: true class, columns: predicted class) and
    `diagnostics.npz`, see `collab_jax.diagnostics.diagnose`.

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
    found = diagnose(restored.config, restored.info, dataset.test, restored.variables)
    np.savez_compressed(folder / "diagnostics.npz", allow_pickle=False, **found)
    write_json(folder / "result.json", result)
    return result
