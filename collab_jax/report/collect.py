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
from collab_jax.runs.metrics_log import read_metrics

__all__ = [
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
    def result(self) -> dict[str, Any] | None:
        """`result.json`, None until the run is done."""
        return read_json(self.directory / "result.json")

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl` so far."""
        try:
            return read_metrics(self.directory)
        except RunError:
            return []

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
        """done, failed and why, how far it is, or not begun."""
        if self.result is not None:
            return "done"
        name = self.path.replace("/", "__")
        outcome = read_json(self.folder / "jobs" / f"{name}.outcome.json") or {}
        if outcome.get("exit_code") not in (None, 0, 75):
            return f"failed: {outcome.get('reason')}"
        epoch = max((line["epoch"] for line in self.metrics), default=0)
        config = read_json(self.directory / "config.json")
        if config is None:
            return "not begun"
        return f"at epoch {epoch} of {config.get('epochs')}"


@dataclass(frozen=True)
class CellData:
    """A cell with its runs."""

    row: str
    column: str
    x: float | None
    paper: float | None
    top5: bool
    runs: tuple[RunData, ...]

    def errors(self, protocol: str) -> dict[int, float]:
        """Test error in % of each seed that is done, by a key of `PROTOCOLS`."""
        name = PROTOCOLS[protocol][0] + ("_top5" if self.top5 else "")
        found = {run.seed: run.result.get(name) for run in self.runs if run.result is not None}
        return {seed: float(error) for seed, error in found.items() if error is not None}

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
      UserError: if it holds neither, or a study of a newer form.
    """
    search = read_json(folder / "search.json")
    if search is not None:
        return SearchData(str(search.get("name")), search)
    content = read_json(folder / "study.json")
    if content is None:
        raise UserError(f"{folder}: no study.json or search.json, expected the folder of a study")
    if content.get("format") != 1:
        raise UserError(
            f"{folder / 'study.json'}: format {content.get('format')!r}, expected 1; a newer "
            "version of collab_jax wrote it"
        )
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
                )
                for cell in table["cells"]
            ),
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
