"""The errors that a run reports: last, lowest over epochs, and chosen by validation."""

from collections.abc import Mapping
from typing import Any

__all__ = ["new_results", "update_results"]


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
    the lowest validation error; those with `_top5` are top-5 errors. All in %.

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
        selected = lowest is None or error < lowest
        if selected:
            results["best_validation_error"] = error
    for suffix, error in (("", test.top1_error), ("_top5", test.top5_error)):
        results["last_test_error" + suffix] = error
        lowest = results["best_test_error" + suffix]
        results["best_test_error" + suffix] = error if lowest is None else min(lowest, error)
        if selected:
            results["val_selected_test_error" + suffix] = error
