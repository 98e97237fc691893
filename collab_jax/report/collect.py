"""What a study's folder holds, at whatever point it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from collab_jax.errors import RunError, UserError
from collab_jax.files.atomic import read_json
from collab_jax.runs.directory import read_result
from collab_jax.runs.metrics_log import read_metrics

__all__ = [
    "MEASURES",
    "PROTOCOLS",
    "CellData",
    "RunData",
    "SearchData",
    "StudyData",
    "TableData",
    "read_folder",
]

PROTOCOLS = {
    "last": ("last_test_error", "last epoch"),
    "selected": ("val_selected_test_error", "chosen by validation"),
    "best": ("best_test_error", "lowest over epochs"),
}
"""The three errors of a run: name in result.json, and what a reader calls it."""

MEASURES = {
    "loss": "negative log-likelihood",
    "calibration_error": "calibration error %",
}
"""What else is measured of the last epoch's test predictions: name in metrics.jsonl, and title."""


@dataclass(frozen=True)
class RunData:
    """One run of a cell: its seed, its directory, the command that repeats it."""

    seed: int
    path: str
    command: str
    folder: Path

    @property
    def directory(self) -> Path:
        return self.folder / self.path

    @cached_property
    def _result(self) -> tuple[dict[str, Any] | None, str]:
        try:
            return read_result(self.directory), ""
        except RunError as error:
            return None, str(error)

    @cached_property
    def _metrics(self) -> tuple[list[dict[str, Any]], str]:
        try:
            return read_metrics(self.directory), ""
        except (RunError, OSError) as error:
            return [], str(error)

    @property
    def result(self) -> dict[str, Any] | None:
        """`result.json`, None until the run is done or where it cannot be read."""
        return self._result[0]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl` so far, none where one of them is damaged."""
        return self._metrics[0]

    @property
    def problems(self) -> list[str]:
        """What of the run's files is there and cannot be read, a line each."""
        result, metrics = self._result[1], self._metrics[1]
        texts = [result] * bool(result) + [f"{metrics}. Until then it has no curve"] * bool(metrics)
        return [text.replace(f"{self.directory}/", "") for text in texts]

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`, empty where there is none."""
        return read_json(self.directory / "config.json") or {}

    def lowest_validation(self, top5: bool) -> list[dict[str, Any]]:
        """The validation lines of the epochs with the lowest validation error, the latest last."""
        name = "top5_error" if top5 else "top1_error"
        lines = [line for line in self.metrics if line["split"] == "validation"]
        lines = [line for line in lines if line.get(name) is not None]
        lowest = min((line[name] for line in lines), default=None)
        return [line for line in lines if line[name] == lowest]

    def error(self, protocol: str, top5: bool) -> float | None:
        """Test error in % of a run that is done, by a key of `PROTOCOLS`.

        That chosen by validation is taken from the metrics, where they are there: earlier versions
        chose the earliest of epochs with one validation error, now it is the latest.
        """
        if self.result is None:
            return None
        if protocol == "selected" and (chosen := self.lowest_validation(top5)):
            name = "top5_error" if top5 else "top1_error"
            for line in self.metrics:
                if line["split"] == "test" and line["epoch"] == chosen[-1]["epoch"]:
                    return line.get(name)
        return self.result.get(PROTOCOLS[protocol][0] + ("_top5" if top5 else ""))

    def measure(self, name: str) -> float | None:
        """A key of `MEASURES` of a run that is done; version 0.1.0 logged no calibration error."""
        if self.result is None:
            return None
        lines = [line for line in self.metrics if line["split"] == "test"]
        return lines[-1].get(name) if lines else None

    @cached_property
    def diagnostics(self) -> dict[str, np.ndarray] | None:
        """What the evaluation of its last checkpoint found inside the network."""
        path = self.directory / "evaluation-last" / "diagnostics.npz"
        try:
            with np.load(path) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError):
            return None

    @property
    def state(self) -> str:
        """done, unreadable, failed and why, how far it is, or not begun."""
        if self.result is not None:
            return "done"
        if self._result[1]:
            return "unreadable"
        name = self.path.replace("/", "__")
        outcome = read_json(self.folder / "jobs" / f"{name}.outcome.json") or {}
        if outcome.get("exit_code") not in (None, 0, 75):
            return f"failed: {outcome.get('reason')}"
        epoch = max((line["epoch"] for line in self.metrics), default=0)
        if not self.config:
            return "not begun"
        return f"at epoch {epoch} of {self.config.get('epochs')}"


@dataclass(frozen=True)
class CellData:
    """A cell with its runs."""

    row: str
    column: str
    x: float | None
    paper: float | None
    top5: bool
    runs: tuple[RunData, ...]
    flops: float | None = None

    def errors(self, protocol: str) -> dict[int, float]:
        """Test error in % of each seed that is done, by a key of `PROTOCOLS`."""
        found = {run.seed: run.error(protocol, self.top5) for run in self.runs}
        return {seed: float(error) for seed, error in found.items() if error is not None}

    def values(self, name: str) -> dict[int, float]:
        """`errors` of a key of `PROTOCOLS`; of one of `MEASURES` that of each seed that is done."""
        if name in PROTOCOLS:
            return self.errors(name)
        found = {run.seed: run.measure(name) for run in self.runs}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def curve(self, name: str, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A metric over epochs: epochs, mean and standard deviation over the seeds there."""
        by_epoch: dict[int, list[float]] = {}
        for run in self.runs:
            for line in run.metrics:
                if line["split"] == split and line.get(name) is not None:
                    by_epoch.setdefault(line["epoch"], []).append(float(line[name]))
        epochs = sorted(by_epoch)
        means = [float(np.mean(by_epoch[epoch])) for epoch in epochs]
        spreads = [
            float(np.std(by_epoch[e], ddof=1)) if len(by_epoch[e]) > 1 else 0.0 for e in epochs
        ]
        return np.array(epochs), np.array(means), np.array(spreads)


@dataclass(frozen=True)
class TableData:
    """A table with its cells in the order of the study."""

    title: str
    baseline: str
    x_label: str
    note: str
    cells: tuple[CellData, ...]
    contrasts: tuple[tuple[str, str], ...] = ()

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(cell.row for cell in self.cells))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(cell.column for cell in self.cells))

    def at(self, row: str, column: str) -> CellData | None:
        """The cell in a row and a column, if there is one."""
        return next((c for c in self.cells if (c.row, c.column) == (row, column)), None)


@dataclass(frozen=True)
class StudyData:
    """A study's folder."""

    name: str
    title: str
    note: str
    tables: tuple[TableData, ...]
    programs: tuple[Mapping[str, Any], ...]
    folder: Path

    @property
    def runs(self) -> list[RunData]:
        """Every run once."""
        runs = {run.path: run for table in self.tables for cell in table.cells for run in cell.runs}
        return list(runs.values())


@dataclass(frozen=True)
class SearchData:
    """A search's folder: the content of its `search.json`."""

    name: str
    content: Mapping[str, Any]


def read_folder(folder: Path) -> StudyData | SearchData:
    """Reads the folder of a study, running or done, or of a search.

    Raises:
      UserError: if it holds neither, a study of a newer form, or JSON of another form.
    """
    search = read_json(folder / "search.json")
    if search is not None:
        expected = {"method": str, "recipe": str, "seeds": list, "grid": dict, "trials": list}
        for name, kind in expected.items():
            if not isinstance(search.get(name), kind):
                raise UserError(
                    f"{folder / 'search.json'}: {name} = {search.get(name)!r:.40}, expected the "
                    "file that a search writes"
                )
        return SearchData(str(search.get("name")), search)
    content = read_json(folder / "study.json")
    if content is None:
        raise UserError(f"{folder}: no study.json or search.json, expected the folder of a study")
    if content.get("format") != 1:
        raise UserError(
            f"{folder / 'study.json'}: format {content.get('format')!r}, expected 1; a newer "
            "version of collab_jax wrote it"
        )
    try:
        return _study(content, folder)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / 'study.json'}: {type(error).__name__}: {error}; expected the file that a "
            "study writes"
        ) from error


def _study(content: Mapping[str, Any], folder: Path) -> StudyData:
    runs: dict[str, RunData] = {}

    # The last bits of a result depend on the number of threads.
    threads = f"NPROC={content['threads']} " if content.get("threads") else ""

    def run(item: Mapping[str, Any]) -> RunData:
        made = RunData(item["seed"], item["path"], threads + item["command"], folder)
        return runs.setdefault(made.path, made)

    tables = [
        TableData(
            table["title"],
            table["baseline"],
            table["x_label"],
            table["note"],
            tuple(
                CellData(
                    cell["row"],
                    cell["column"],
                    cell["x"],
                    cell["paper"],
                    cell["top5"],
                    tuple(run(item) for item in cell["runs"]),
                    cell.get("flops"),
                )
                for cell in table["cells"]
            ),
            tuple((first, second) for first, second in table.get("contrasts", ())),
        )
        for table in content["tables"]
    ]
    return StudyData(
        content["name"],
        content["title"],
        content["note"],
        tuple(tables),
        tuple(content["programs"]),
        folder,
    )
