"""`python -m collab_jax.study.search --search FILE[:METHOD] --out DIR`: weights by validation."""

from __future__ import annotations

import argparse
import os
import pprint
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from collab_jax import config as config_lib
from collab_jax.config import recipes
from collab_jax.errors import RunError, UserError
from collab_jax.files.atomic import write_json
from collab_jax.runs.directory import read_result
from collab_jax.runs.metrics_log import read_metrics
from collab_jax.runs.signals import EXIT_CODE
from collab_jax.study.child import reason_of
from collab_jax.study.folder import check_room
from collab_jax.study.search.spec import Search, check_search, grid_points, load_search, trial_runs
from collab_jax.study.search.storage import Claim, SearchStorage
from collab_jax.study.state import is_held
from collab_jax.study.task import Run, interpreter_command

__all__ = ["best_recipe", "main", "work"]


class _Stop(Exception):
    """A signal ends this process; its trial waits for the next one."""


def work(name: str, search: Search, out: Path, *, threads: int = 0) -> list[dict[str, Any]]:
    """Does trials until none is left; several processes may do so in one folder.

    Args:
      name: of the search.
      search: the search.
      out: its folder.
      threads: CPU threads of each run; 0 leaves it to XLA.

    Returns:
      Every trial as `SearchStorage.rows` gives it.

    Raises:
      UserError: if the folder is not this search's.
      RunError: if the disk is nearly full.
    """
    storage = SearchStorage(out, name, search)
    while True:
        check_room(out)
        claim = storage.claim()
        if claim is None:
            break
        try:
            _do(storage, search, claim, threads)
        finally:
            claim.release()
        rows = storage.rows()
        write_json(out / "search.json", {"name": name, **search.identity(), "trials": rows})
        print(_line(rows[claim.trial.number]), flush=True)
    rows = storage.rows()
    write_json(out / "search.json", {"name": name, **search.identity(), "trials": rows})
    return rows


def _do(storage: SearchStorage, search: Search, claim: Claim, threads: int) -> None:
    """Brings a trial to its end."""
    trial, states = claim.trial, storage._optuna.trial.TrialState
    parameters = storage.suggest(trial)
    values = []
    for index, run in enumerate(trial_runs(search, parameters, claim.folder)):
        outcome = _train(run, claim, threads, watch=index == 0)
        if outcome == "pruned":
            storage.study.tell(trial, state=states.PRUNED)
            return
        if outcome:
            trial.set_user_attr("reason", outcome)
            storage.study.tell(trial, state=states.FAIL)
            return
        values.append(_validation_errors(run, claim.folder)[-1][1])
    storage.study.tell(trial, sum(values) / len(values))


def _validation_errors(run: Run, folder: Path) -> list[tuple[int, float]]:
    """(epoch, error in %) on the validation split, and on no other."""
    assert run.config is not None
    name = "top5_error" if run.config.top5 else "top1_error"
    lines = read_metrics(folder / run.name)
    return [
        (line["epoch"], line[name])
        for line in lines
        if line["split"] == "validation" and name in line
    ]


def _train(run: Run, claim: Claim, threads: int, *, watch: bool) -> str:
    """Trains one run of a trial, or goes on with it.

    Returns:
      "" at its end, "pruned", or why it failed.
    """
    folder = claim.folder
    # The run of a process that was killed may live on: its result counts as this trial's.
    while is_held(folder / run.name):
        time.sleep(0.5)
    # A result that cannot be read does not count: the run writes it again.
    with suppress(RunError):
        if read_result(folder / run.name) is not None:
            return ""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **({"NPROC": str(threads)} if threads else {})}
    log_path = folder.with_suffix(".log")
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            interpreter_command(run),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    try:
        while process.poll() is None:
            time.sleep(0.5)
            if watch and _report(run, claim):
                process.send_signal(signal.SIGTERM)
                process.wait()
                return "pruned"
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    if process.returncode == EXIT_CODE:
        raise _Stop
    if process.returncode:
        reason = reason_of(log_path, process.returncode)
        return _train(run, claim, threads, watch=watch) if "in use by" in reason else reason
    if watch:
        _report(run, claim)
    return ""


def _report(run: Run, claim: Claim) -> bool:
    """Tells the trial's new validation errors; returns whether it should end."""
    trial = claim.trial
    known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    new = [item for item in _validation_errors(run, claim.folder) if item[0] not in known]
    for epoch, error in new:
        trial.report(error, epoch)
    return bool(new) and trial.should_prune()


def best_recipe(
    name: str, search: Search, rows: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], str] | None:
    """The best trial, and the text of a recipe that `launch.py --config` accepts.

    The recipe holds the searched recipe's values and the best trial's, without the overrides that
    were for the search alone.

    Args:
      name: of the search.
      search: the search.
      rows: its trials.

    Returns:
      None where no trial is complete.
    """
    complete = [row for row in rows if row["validation_error"] is not None]
    if not complete:
        return None
    best = min(complete, key=lambda row: (row["validation_error"], row["trial"]))
    config = recipes.load(search.recipe, search.method)
    config = config_lib.override(config, {k: repr(v) for k, v in best["parameters"].items()})
    changes = config_lib.differences(config_lib.Config(), config)
    values = {key: new for key, _, new in changes if key not in ("method", "seed", "version")}
    values["name"] = name
    found = ", ".join(f"{key} = {value:.4g}" for key, value in best["parameters"].items())
    text = f'''"""{config.name}, {config.method}, with the values that a search found.

Trial {best["trial"]} of {len(rows)}: {found}; validation error {best["validation_error"]:.2f}%
(mean over seeds {", ".join(map(str, search.seeds))}, after the last epoch). The test split was not
looked at.
"""

from collab_jax import config as config_lib


def get_config(method: str = "{config.method}"):
    """The recipe with a method; the values were found for {config.method}."""
    return config_lib.recipe(
        method,
{_indented(pprint.pformat(values, sort_dicts=False, width=88), 8)},
    )
'''
    return best, text


def _indented(text: str, spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in text.splitlines())


def _line(row: dict[str, Any]) -> str:
    parameters = ", ".join(f"{key} = {value:.4g}" for key, value in row["parameters"].items())
    error = row["validation_error"]
    detail = f"validation error {error:.2f}%" if error is not None else row.get("reason", "")
    return f"trial {row['trial']} ({row['kind']}): {parameters}: {row['state']} {detail}".rstrip()


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="trials, best first", title_justify="left")
    keys = list(dict.fromkeys(key for row in rows for key in row["parameters"]))
    for column in ("trial", "kind", "state", "validation error", *keys):
        table.add_column(column)
    infinity = float("inf")
    order = {row["trial"]: row["validation_error"] or infinity for row in rows}
    for row in sorted(rows, key=lambda row: order[row["trial"]]):
        error = row["validation_error"]
        text = "" if error is None else f"{error:.2f}%"
        values = [f"{row['parameters'].get(key, float('nan')):.4g}" for key in keys]
        table.add_row(str(row["trial"]), row["kind"], row["state"], text, *values)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m collab_jax.study.search",
        allow_abbrev=False,
        description="Searches a recipe's values by validation error. Start it several times with "
        "one --out to work in parallel; the same command goes on after a stop.",
    )
    parser.add_argument("--search", required=True, metavar="FILE[:METHOD]")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--trials", type=int, default=None, metavar="N", help="in all")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads of a run")
    parser.add_argument("--dry-run", action="store_true", help="list the grid, start nothing")
    return parser


def _raise_stop(number: int, frame: Any) -> None:
    raise _Stop


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; 0 at the end, 1 if no trial is complete, 2 for mistakes, 75 if stopped."""
    options = _parser().parse_args(arguments)
    # Its own enqueue and journal are told as experimental; they are what this program is tested on.
    warnings.filterwarnings("ignore", module="optuna")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise_stop)
    try:
        return _main(options)
    except (UserError, RunError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except _Stop:
        print("stopped; the same command goes on with the trial", file=sys.stderr)
        return EXIT_CODE


def _main(options: argparse.Namespace) -> int:
    name, search = load_search(options.search)
    if options.trials is not None:
        search = replace(search, trials=options.trials)
        check_search(search)
    out = Path(os.path.abspath(options.out.expanduser()))
    if options.dry_run:
        for point in grid_points(search):
            print("grid: " + ", ".join(f"{key} = {value:g}" for key, value in point.items()))
        print(f"{search.trials - len(grid_points(search))} more drawn by TPE; {name}")
        return 0
    rows = work(name, search, out, threads=options.threads)
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120).print(
        _table(rows)
    )
    best = best_recipe(name, search, rows)
    unfinished = [row["trial"] for row in rows if row["state"] in ("running", "waiting")]
    if unfinished:
        print(f"other processes still work on {len(unfinished)} trials")
        return 0
    if best is None:
        print("error: no trial is complete", file=sys.stderr)
        return 1
    (out / "best.py").write_text(best[1])
    print(f"best: {_line(best[0])}")
    print(f"python launch.py --config {out / 'best.py'}:{config_lib.parse_method(search.method)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
