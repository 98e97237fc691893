"""Modules that 0.1.0 had elsewhere: importing one tells where it is."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

__all__ = ["MOVED", "install", "told"]

MOVED = {
    "benchmark.case": "benchmark.workload",
    "benchmark.held": "benchmark.peak_memory",
    "benchmark.step": "benchmark.step_time",
    "benchmark.tables": "benchmark.markdown",
    "benchmark.targets": "benchmark.gpus",
    "captured": "isolation",
    "checkpoint": "runs.checkpoint",
    "config_checks": "config.checks",
    "config_schema": "config.schema",
    "continuation": "runs.start",
    "determinism": "runs.environment",
    "diagnostics": "runs.diagnostics",
    "evaluate": "training.evaluation and runs.evaluate",
    "events": "runs.tensorboard",
    "experiment": "training.build",
    "export": "runs.export",
    "exported": "runs.load_model",
    "feed": "training.batches",
    "interrupt": "runs.signals",
    "label_noise": "data.label_noise",
    "mesh": "training.placement",
    "metrics": "runs.metrics_log",
    "optimizer": "training.optimizer",
    "processes": "runs.processes",
    "profiling": "runs.profiling",
    "progress": "runs.display",
    "provenance": "runs.result",
    "recipes": "config.recipes",
    "restore": "runs.load",
    "results": "runs.result",
    "run_dir": "runs.directory",
    "step": "training.step",
    "study.engine": "study.launcher",
    "study.job": "study.child",
    "study.runs": "study.task",
    "study.search_spec": "study.search.spec",
    "study.search_storage": "study.search.storage",
    "timing": "runs.clock",
    "train": "runs.loop",
    "train_state": "training.state",
    "warm_start": "runs.start",
}
"""Old name to new, both within the package."""


def told(name: str) -> str | None:
    """What to say of a module's old name within the package; None for any other name."""
    if name not in MOVED:
        return None
    return f"collab_jax.{name} is collab_jax.{MOVED[name]} since version 0.2.0"


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        package, _, name = fullname.partition(".")
        if package == "collab_jax" and (text := told(name)):
            raise ImportError(text, name=fullname)


def install() -> None:
    """Lets imports of old names fail with the new one; asked last, after every other finder."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
