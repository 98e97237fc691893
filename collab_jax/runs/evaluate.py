"""Evaluates a run's checkpoint, and writes what it found beside the run."""

import csv
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from collab_jax.config import Config
from collab_jax.data import DataInfo, Dataset
from collab_jax.errors import UserError
from collab_jax.files.atomic import write_json
from collab_jax.files.functions import is_own
from collab_jax.runs.diagnostics import diagnose
from collab_jax.runs.directory import written_or_told
from collab_jax.runs.identity import check_content
from collab_jax.runs.load import Restored, load_run
from collab_jax.training.build import load_data
from collab_jax.training.evaluation import Evaluator
from collab_jax.training.placement import Placement

__all__ = ["run"]


def run(
    workdir: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    config: Any = None,
    output: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run on its test split, or on that of other data.

    Writes `evaluation-CHECKPOINT/`, for other data `evaluation-CHECKPOINT-on-DATA-FINGERPRINT/`:
    `result.json`, `predictions.npz` (logits, predictions, labels), `confusion_matrix.csv` (rows:
    true class, columns: predicted class) and `diagnostics.npz`, see
    `collab_jax.runs.diagnostics.diagnose`, for our own networks. Where the run directory takes no
    files, it warns.

    Args:
      workdir: the run directory.
      checkpoint: best, last or a step.
      config: a config with other `data.dir`, `data.manual_dir` or `eval_batch_size`, or with other
        data (another `data.name`, with its `data.test` and `data.image_size`); None for the run's.
      output: folder to write into; None for the run directory.

    Returns:
      The content of `result.json`: errors and calibration error in %, loss, the error of each
      class, and on what.

    Raises:
      UserError: if the directory holds no run, or no such checkpoint; if the content of its own
        data has changed, or other data have other images or classes.
      OSError: if `output` takes no files.
    """
    run_dir = Path(workdir)
    restored = load_run(run_dir, checkpoint)
    config = config or restored.config
    dataset, own = _dataset(run_dir, restored, config)
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
        "data": config.data.name,
        "data_fingerprint": dataset.fingerprint,
        "split": "test",
        "images": len(labels),
        **vars(evaluation),
        "class_error": {
            name: 100.0 * float(1 - confusion[i, i] / counts[i]) if counts[i] else None
            for i, name in enumerate(names)
        },
    }
    where = "" if own else f"-on-{_short_name(dataset)}"
    folder = Path(output or run_dir) / f"evaluation-{checkpoint}{where}"
    found: dict[str, Any] | None = None
    if not is_own(restored.config.model.name):
        found = diagnose(restored.config, restored.info, dataset.test, restored.variables)
    with written_or_told(folder, asked_for=output is not None):
        folder.mkdir(parents=output is not None, exist_ok=True)
        np.savez(folder / "predictions.npz", logits=logits, predictions=predictions, labels=labels)
        with (folder / "confusion_matrix.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["true class", *names])
            rows = zip(names, confusion.tolist(), strict=True)
            writer.writerows([name, *row] for name, row in rows)
        if found is not None:
            np.savez_compressed(folder / "diagnostics.npz", **found)
        write_json(folder / "result.json", result)
    return result


def _dataset(run_dir: Path, restored: Restored, config: Config) -> tuple[Dataset, bool]:
    """The data to evaluate on, and whether they are the run's own."""
    name, info = config.data.name, restored.info
    if name == restored.config.data.name:
        dataset = load_data(config)
        remedy = "expected the same images and labels, or others under another data.name"
        known = check_content(name, dataset.fingerprint, info.fingerprint, remedy)
        # A checkpoint of version 0.1.0 knows no more of its data.
        if not known and replace(DataInfo.of(dataset), fingerprint="") != info:
            raise UserError(
                f"data.name {name!r}: its classes, image shape or statistics are not those "
                f"that the run in {run_dir} was trained on"
            )
        return dataset, True
    # Of other data the test split alone is wanted.
    whole = replace(config.data, validation=0.0, train_examples=0)
    dataset = load_data(replace(config, data=whole))
    shape, names = tuple(dataset.test.image_shape), tuple(dataset.class_names)
    if shape != info.image_shape or dataset.num_classes != info.num_classes:
        raise UserError(
            f"config.data.name = {name!r}: images {shape} in {dataset.num_classes} classes; "
            f"expected {info.image_shape} in {info.num_classes}, as the run in {run_dir} has"
        )
    if names != info.class_names and sorted(names) == sorted(info.class_names):
        place = [a != b for a, b in zip(names, info.class_names, strict=True)].index(True)
        raise UserError(
            f"config.data.name = {name!r}: class {place} is {names[place]!r}; expected the run's "
            f"classes in their order, {info.class_names[place]!r} there"
        )
    return dataset, dataset.fingerprint == info.fingerprint


def _short_name(dataset: Dataset) -> str:
    """What a data set is called in the name of a folder."""
    last = [part for part in re.split(r"[^A-Za-z0-9._-]+", dataset.name) if part.strip(".")][-1:]
    return "-".join([*last, dataset.fingerprint[:8]])
