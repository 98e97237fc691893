"""A run's result: errors at the end, lowest and chosen, and what they were made with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collab_jax.config import Config
from collab_jax.files.atomic import read_json, write_json

__all__ = [
    "final_result",
    "new_record",
    "new_results",
    "update_record",
    "update_results",
    "write_result",
]


def new_record(has_validation: bool) -> dict[str, Any]:
    """What is known of a run that has not begun; each of its checkpoints holds such a record."""
    return {
        "best": None,
        "results": new_results(has_validation),
        "seconds": 0.0,
        "metrics_lines": 0,
    }


def update_record(
    record: dict[str, Any], evaluations: Mapping[str, Any], step: int, epoch: int, top5: bool
) -> bool:
    """Adds an epoch's evaluations to a record; see `update_results`.

    Returns:
      Whether the epoch is the best so far, the latest of several.
    """
    update_results(record["results"], evaluations, epoch, top5)
    chosen = evaluations.get("validation", evaluations["test"]).headline(top5)
    best = record["best"] is None or chosen <= record["best"]["error"]
    if best:
        record["best"] = {"step": step, "epoch": epoch, "error": chosen}
    return best


def final_result(config: Config, record: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The content of a finished run's `result.json`."""
    return {
        **record["results"],
        "best_checkpoint": record["best"],
        "method": config.method,
        "seed": config.seed,
        "data_fingerprint": record["data"]["fingerprint"],
        "seconds": seconds,
        **record["made_with"],
    }


def new_results(has_validation: bool) -> dict[str, Any]:
    """The results of a run that has not been evaluated yet."""
    results: dict[str, Any] = {"selected_by": "validation" if has_validation else "test"}
    for suffix in ("", "_top5"):
        for name in ("last_test_error", "best_test_error", "val_selected_test_error"):
            results[name + suffix] = None
    results["best_validation_error"] = None
    results["epochs"] = 0
    return results


def update_results(
    results: dict[str, Any], evaluations: Mapping[str, Any], epoch: int, top5: bool
) -> None:
    """Adds an epoch's evaluations.

    `last_test_error` is the newest, `best_test_error` the lowest over epochs (the paper's
    protocol, which looks at the test split), `val_selected_test_error` the one at the epoch with
    the lowest validation error, the latest of several; those with `_top5` are top-5 errors. All
    in %.

    Args:
      results: changed in place.
      evaluations: an `Evaluation` by split name, `test` always, `validation` where there is one.
      epoch: epochs done.
      top5: whether the validation split chooses by top-5 error.
    """
    test, validation = evaluations["test"], evaluations.get("validation")
    results["epochs"] = epoch
    selected = False
    if validation is not None:
        error = validation.headline(top5)
        lowest = results["best_validation_error"]
        selected = lowest is None or error <= lowest
        if selected:
            results["best_validation_error"] = error
    for suffix, error in (("", test.top1_error), ("_top5", test.top5_error)):
        results["last_test_error" + suffix] = error
        lowest = results["best_test_error" + suffix]
        results["best_test_error" + suffix] = error if lowest is None else min(lowest, error)
        if selected:
            results["val_selected_test_error" + suffix] = error


def write_result(path: Path, result: dict[str, Any], *, trained: bool) -> dict[str, Any]:
    """Writes a result, unless a whole one is there and nothing was trained since; returns it."""
    old = None if trained else read_json(path)
    # Of the time after the last checkpoint, the old one knows more.
    if old is not None and isinstance(old.get("seconds"), int | float):
        if old == {**result, "seconds": old["seconds"]}:
            return old
    write_json(path, result)
    return result
