"""`python -m collab_jax.study --study FILE --out DIR`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from collab_jax import config as config_lib
from collab_jax.errors import RunError, UserError
from collab_jax.files.atomic import read_json
from collab_jax.runs.signals import EXIT_CODE
from collab_jax.study.display import Board, plan_table
from collab_jax.study.estimate import cost_key, estimate, spell
from collab_jax.study.folder import (
    STUDY_FILE,
    check_folder,
    check_room,
    counted_flops,
    describe,
    hold_folder,
    write_study,
)
from collab_jax.study.launcher import Engine, parse_slurm
from collab_jax.study.reuse import copy_runs, finished_elsewhere
from collab_jax.study.scheduler import Scheduler, StudyStopped
from collab_jax.study.spec import Study, load_study
from collab_jax.study.state import told_state
from collab_jax.study.task import Run, cell_run, program_run, study_runs


def _parser() -> config_lib.FlagParser:
    parser = config_lib.FlagParser(
        overrides_help="a key that changes no result, such as --config.data.dir=/data, for every "
        "run",
        add_help=True,
        prog="python -m collab_jax.study",
        description="Runs what is missing of a study. The same command goes on after a stop.",
        epilog=f"shipped studies: {', '.join(config_lib.list_shipped('study'))}",
    )
    parser.add_argument("--study", required=True, metavar="FILE", help="file or shipped name")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="its folder")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, start none")
    parser.add_argument(
        "--flops",
        action="store_true",
        help="count FLOPs (seconds for each cell); the report shows them beside the time",
    )
    parser.add_argument(
        "--jobs", type=int, default=None, metavar="N", help="runs at a time (1; with --slurm: all)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=None,
        metavar="N",
        help="CPU threads of each run (0: all cores); those that the study had before, or 0",
    )
    parser.add_argument(
        "--gpus", default="", metavar="A,B", help="devices of this machine, one for each run"
    )
    parser.add_argument(
        "--reuse",
        default=None,
        type=Path,
        metavar="DIR",
        help="another study's folder, whose finished runs of the same config are copied",
    )
    parser.add_argument(
        "--only",
        default="",
        metavar="TEXT",
        help="runs whose name, table, row or column holds TEXT",
    )
    parser.add_argument(
        "--slurm",
        nargs="*",
        default=None,
        metavar="KEY=VALUE",
        help="run on SLURM, with submitit's parameters such as slurm_partition=gpu timeout_min=240",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; 0 if every run is done, 1 if one failed, 2 for mistakes, 75 if stopped."""
    try:
        return _run(_parser().read(sys.argv[1:] if arguments is None else arguments))
    except (UserError, RunError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    except StudyStopped as stop:
        print(stop, file=sys.stderr)
        return EXIT_CODE


def _run(options: argparse.Namespace) -> int:
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: expected at least 1")
    if options.threads is not None and options.threads < 0:
        raise UserError(f"--threads {options.threads}: expected 0 or more")
    _check_overrides(options.overrides)
    slurm = None if options.slurm is None else parse_slurm(options.slurm)
    name, study = load_study(options.study)
    out = _absolute(options.out)
    runs = study_runs(study, out, options.only)
    if not runs:
        raise UserError(f"--only {options.only}: no name of a run, table, row or column holds it")
    check_folder(out, name, runs)
    source = out if options.reuse is None else _absolute(options.reuse)
    before = (read_json(out / STUDY_FILE) or {}).get("threads")
    threads = (before or 0) if options.threads is None else options.threads
    found = [] if options.reuse is None else finished_elsewhere(source, out, runs, threads)
    if options.dry_run:
        names = {run.name for run in found}
        elsewhere = {run.name: source for run in runs if names & {run.name, run.after}}
        _dry_run(study, runs, out, elsewhere, count=options.flops)
        return 0
    with hold_folder(out):
        check_folder(out, name, runs)
        check_room(out)
        if before not in (None, threads):
            print(
                f"warning: --threads was {before} and is {threads}: the last bits of a result "
                "depend on it",
                file=sys.stderr,
            )
        flops = counted_flops(out)
        if options.flops:
            counted = _count_flops(runs)
            flops |= {
                run.name: counted[key]
                for run in runs
                if run.config is not None and (key := cost_key(run.config)) in counted
            }
        write_study(out, describe(name, study, out, study.seeds, threads, flops))
        copy_runs(source, out, found)
        engine = Engine(out / "jobs" / "submitit", slurm)
        scheduler = Scheduler(
            out,
            runs,
            engine,
            Board(study.title),
            jobs=options.jobs or (1 if slurm is None else len(runs)),
            threads=threads,
            gpus=options.gpus.split(",") if options.gpus else (),
            flags=[f"--config.{key}={text}" for key, text in options.overrides.items()],
        )
        states = scheduler.go()
    failed = sorted(name for name, state in states.items() if state.status == "failed")
    done = sum(state.status == "done" for state in states.values())
    print(f"{done} of {len(states)} runs done, {len(failed)} failed; {out}")
    for name in failed:
        print(f"failed {name}: {states[name].reason}", file=sys.stderr)
    return 1 if failed else 0


def _check_overrides(overrides: Mapping[str, str]) -> None:
    for key, text in overrides.items():
        if key not in config_lib.RESUME_FREE_KEYS:
            raise UserError(
                f"--config.{key}={text}: {key} changes results, expected it in the study file; "
                f"here only {', '.join(sorted(config_lib.RESUME_FREE_KEYS))}"
            )


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def _dry_run(
    study: Study, runs: Sequence[Run], out: Path, elsewhere: Mapping[str, Path], *, count: bool
) -> None:
    by_name = {run.name: run for run in runs}
    states = {name: told_state(elsewhere.get(name, out), run) for name, run in by_name.items()}
    flops = _count_flops(runs) if count else {}
    estimates = estimate(by_name, states)
    cells = [
        (cell.row, cell.column, found)
        for table in study.tables
        for cell in table.cells
        if (found := [by_name[r.name] for r in _seeds(cell, study, out) if r.name in by_name])
    ]
    cells += [
        ("program", program.name, [by_name[program_run(program, out).name]])
        for program in study.programs
        if program.name in by_name
    ]
    of_run = {
        name: flops[cost_key(run.config)]
        for name, run in by_name.items()
        if run.config is not None and cost_key(run.config) in flops
    }
    console = Console(
        highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 160
    )
    console.print(study.title)
    console.print(plan_table(cells, states, estimates, of_run))
    left = [item.seconds for name, item in estimates.items() if states[name].status != "done"]
    known = [seconds for seconds in left if seconds is not None]
    pictures = sum(bool(run.after) for run in runs)
    text = f"{len(cells)} cells, {len(runs) - pictures} runs"
    text += f" and {pictures} evaluations" if pictures else ""
    text += f", {len(left)} to do"
    if left:
        text += f": {spell(sum(known))} one after the other" if known else ": time unknown"
        missing = len(left) - len(known)
        text += f", and {missing} of unknown time" if known and missing else ""
    print(text)


def _seeds(cell, study: Study, out: Path) -> list[Run]:
    return [cell_run(cell, seed, out) for seed in study.seeds]


def _count_flops(runs: Sequence[Run]) -> dict[tuple[object, ...], float]:
    from collab_jax.study.flops import run_flops

    counted: dict[tuple[object, ...], float] = {}
    for run in runs:
        if run.config is not None and cost_key(run.config) not in counted:
            value = run_flops(run.config)
            if value is not None:
                counted[cost_key(run.config)] = value
    return counted


if __name__ == "__main__":
    sys.exit(main())
