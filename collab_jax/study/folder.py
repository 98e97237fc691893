"""A study's folder: who works in it, which study it is of, and room on its disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from collab_jax import config as config_lib
from collab_jax._version import __version__
from collab_jax.errors import RunError, UserError
from collab_jax.files.atomic import read_json, write_json
from collab_jax.files.locks import FileLock
from collab_jax.runs.directory import read_config
from collab_jax.study.spec import Study
from collab_jax.study.task import Run, cell_run, program_run

__all__ = [
    "STUDY_FILE",
    "check_folder",
    "check_room",
    "counted_flops",
    "describe",
    "hold_folder",
    "write_study",
]

STUDY_FILE = "study.json"
_ROOM = 256 << 20
_LOCK = ".study.lock"


def describe(
    name: str,
    study: Study,
    out: Path,
    seeds: Sequence[int],
    threads: int = 0,
    flops: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """A study as its folder's `study.json` holds it: all that the report has to know.

    Args:
      name: of the study.
      study: its cells.
      out: its folder.
      seeds: of every cell.
      threads: CPU threads of each run.
      flops: that a run trains with, by its name, as far as they are counted.
    """
    return {
        "format": 1,
        "collab_jax": __version__,
        "name": name,
        "title": study.title,
        "note": study.note,
        "seeds": list(seeds),
        "threads": threads,
        "tables": [
            {
                "title": table.title,
                "baseline": table.baseline,
                "x_label": table.x_label,
                "note": table.note,
                "contrasts": [list(pair) for pair in table.contrasts],
                "cells": [_cell(cell, seeds, out, flops or {}) for cell in table.cells],
            }
            for table in study.tables
        ],
        "programs": [
            {
                "name": program.name,
                "title": program.title,
                "paper": dict(program.paper),
                "product": program.name + program.product,
                "command": program_run(program, Path()).command,
            }
            for program in study.programs
        ],
    }


def _cell(cell: Any, seeds: Sequence[int], out: Path, flops: Mapping[str, float]) -> dict[str, Any]:
    runs = [cell_run(cell, seed, out) for seed in seeds]
    config = runs[0].config
    assert config is not None
    return {
        "row": cell.row,
        "column": cell.column,
        "x": cell.x,
        "paper": cell.paper,
        "method": config.method,
        "top5": config.top5,
        "flops": flops.get(runs[0].name),
        "runs": [
            {"seed": seed, "path": run.name, "command": run.command}
            for seed, run in zip(seeds, runs, strict=True)
        ],
    }


def counted_flops(out: Path) -> dict[str, float]:
    """FLOPs by the name of each cell's first run, as far as `study.json` holds them."""
    content = read_json(out / STUDY_FILE) or {}
    try:
        return {
            cell["runs"][0]["path"]: float(cell["flops"])
            for table in content.get("tables", ())
            for cell in table["cells"]
            if cell.get("flops") is not None
        }
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        # Written by hand: the study writes it anew.
        return {}


def check_folder(out: Path, name: str, runs: Sequence[Run]) -> None:
    """Refuses a folder that is not this study's, before anything is written.

    Raises:
      UserError: if it is a file, a run's directory, another study's, holds other things, or holds
        runs with other configs.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file, expected a folder")
    if not out.exists():
        return
    found = sorted(path.name for path in out.iterdir() if path.name != _LOCK)
    content = read_json(out / STUDY_FILE)
    if content is None:
        if "config.json" in found or "checkpoints" in found:
            raise UserError(f"--out {out}: is the directory of a run, expected a study's folder")
        if found:
            raise UserError(
                f"--out {out}: holds {', '.join(found[:3])} and no {STUDY_FILE}; expected a new "
                "folder or this study's"
            )
        return
    if content.get("name") != name:
        raise UserError(
            f"--out {out}: holds the study {content.get('name')!r}, not {name!r}; expected a new "
            "folder or this study's"
        )
    for run in runs:
        if run.config is not None and (out / run.name / "config.json").is_file():
            _check_config(out / run.name, run)


def _check_config(run_dir: Path, run: Run) -> None:
    assert run.config is not None
    conflicts = config_lib.conflict_text(read_config(run_dir), run.config)
    if conflicts:
        raise UserError(
            f"{run_dir}: its run has another config: {conflicts}; expected the study's values, or "
            "another --out"
        )


def check_room(out: Path) -> None:
    """Refuses to start runs on a disk that is nearly full.

    Raises:
      RunError: if less than 256 MiB are free.
    """
    free = shutil.disk_usage(out).free
    if free < _ROOM:
        raise RunError(
            f"{out}: {free >> 20} MiB of its disk are free, expected {_ROOM >> 20} MiB at least "
            "before a run starts; what is there is kept, and the same command goes on"
        )


@contextmanager
def hold_folder(out: Path) -> Iterator[None]:
    """Makes a study's folder and keeps a second process of a study out of it.

    Raises:
      UserError: if it cannot be made or written, or another process works in it.
    """
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / _LOCK)
    except OSError as error:
        raise UserError(
            f"--out {out}: {error.strerror}; expected a folder that can be written"
        ) from None
    with lock:
        if not lock.try_acquire():
            raise UserError(
                f"--out {out}: the study is run by {lock.holder()}; expected one process for a "
                "folder"
            )
        lock.sign()
        try:
            yield
        except UserError:
            if made:
                # Only a folder that is still empty goes.
                (out / _LOCK).unlink(missing_ok=True)
                with suppress(OSError):
                    out.rmdir()
            raise


def write_study(out: Path, content: dict[str, Any]) -> None:
    """Writes `study.json`.

    Raises:
      RunError: if the disk does not take it.
    """
    try:
        (out / "jobs").mkdir(exist_ok=True)
        write_json(out / STUDY_FILE, content)
    except OSError as error:
        raise RunError(
            f"{out / STUDY_FILE}: could not be written ({error.strerror}); nothing was started"
        ) from error
