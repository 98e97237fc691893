"""Finished runs of another study: copied in place of being trained again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from collab_jax import config as config_lib
from collab_jax.errors import RunError, UserError
from collab_jax.files.atomic import new_folder, read_json, remove_temporaries
from collab_jax.runs.directory import LOCK, read_config, read_result
from collab_jax.study.folder import STUDY_FILE
from collab_jax.study.task import Run

__all__ = ["copy_runs", "finished_elsewhere"]


def finished_elsewhere(source: Path, out: Path, runs: Sequence[Run], threads: int) -> list[Run]:
    """Those of a study's runs that another study has finished with the same config.

    Args:
      source: the other study's folder.
      out: this study's folder; what has begun there is left to it.
      runs: this study's runs.
      threads: CPU threads of its runs.

    Raises:
      UserError: if `source` is not another study's folder, or its runs had other threads, which
        changes their last bits.
    """
    study = read_json(source / STUDY_FILE)
    if study is None or source == out:
        raise UserError(
            f"--reuse {source}: expected the folder of another study, with {STUDY_FILE}"
        )
    if study.get("threads", threads) != threads:
        raise UserError(
            f"--reuse {source}: its runs had --threads {study['threads']}, not {threads}; results "
            "repeat bit for bit for one number of threads only"
        )
    return [
        run
        for run in runs
        if run.config is not None
        and not (out / run.name).exists()
        and _is_finished(source, run)
        and not config_lib.resume_conflicts(read_config(source / run.name), run.config)
    ]


def _is_finished(source: Path, run: Run) -> bool:
    try:
        return read_result(source / run.name) is not None
    except RunError as error:
        print(f"warning: --reuse {source}: {run.name} is not copied: {error}", file=sys.stderr)
        return False


def copy_runs(source: Path, out: Path, runs: Sequence[Run]) -> None:
    """Copies run directories, each of them wholly or not at all.

    Raises:
      RunError: if one cannot be read or written.
    """
    for run in runs:
        remove_temporaries(out / run.name)
        without_lock = shutil.ignore_patterns(LOCK)
        try:
            with new_folder(out / run.name) as part:
                shutil.copytree(source / run.name, part, ignore=without_lock, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            raise RunError(
                f"--reuse {source}: {run.name} could not be copied ({error}); the same command "
                "goes on"
            ) from error
    if runs:
        print(f"{len(runs)} finished runs copied from {source}", file=sys.stderr)
