"""A run's result: errors at the end, lowest and chosen, and what they were made with."""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from collab_jax._version import __version__
from collab_jax.config import Config
from collab_jax.files.atomic import read_json, write_json
from collab_jax.runs.display import device_names

__all__ = [
    "final_result",
    "git_revision",
    "new_record",
    "new_results",
    "update_record",
    "update_results",
    "versions",
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
        "versions": versions(),
        "git_revision": git_revision(),
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
    if old is not None and isinstance(old.get("seconds"), int | float):
        # Of what trained the run, the old one knows more.
        kept = {name: old.get(name) for name in ("seconds", "versions", "git_revision")}
        if old == {**result, **kept}:
            return old
    write_json(path, result)
    return result


def versions() -> dict[str, str]:
    """Versions of the packages that determine a run's numbers, and its devices."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "collab_jax": __version__,
        "python": platform.python_version(),
        "device": device_names(),
        **{name: version(name) for name in packages},
    }


def git_revision() -> str | None:
    """The commit of the source tree, marked where it was changed; None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
