"""Kills, signals, damage, full disks and bad input against real runs, as a table.

    python tools/reliability.py            full counts, writes results/reliability.md
    python tools/reliability.py --quick    small counts, prints the table alone
    python tools/reliability.py --only kills disks    these rows at full counts, likewise
    python tools/reliability.py --kinds    the table by kind of fault, into results/reliability.md;
                                           with --quick, or some groups' names, it is
                                           printed alone

Every run is a process of `launch.py` on scikit-learn's digits. A full disk is a small tmpfs, which
takes the right to mount one; without it the row says so.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tools")]

import bad_input  # noqa: E402
import disturbed_rows  # noqa: E402
import jax  # noqa: E402
import kinds_of_files  # noqa: E402
import kinds_of_input  # noqa: E402
import kinds_of_surroundings  # noqa: E402
from disturbed import Disturbed  # noqa: E402
from reliability_row import Row  # noqa: E402
from small_run import Small  # noqa: E402

HEADING = "## By kind of fault"
KINDS: dict[str, Any] = {
    "files": kinds_of_files,
    "surroundings": kinds_of_surroundings,
    "input": kinds_of_input,
}
FULL = {
    "kills": 30,
    "signals": 10,
    "second_signals": 3,
    "damages": 200,
    "resumes": 3,
    "disks": 4,
    "removals": 3,
    "configs": 500,
    "files": 500,
    "steps": 2000,
}
QUICK = {
    "kills": 3,
    "signals": 2,
    "second_signals": 1,
    "damages": 12,
    "resumes": 1,
    "disks": 1,
    "removals": 1,
    "configs": 24,
    "files": 60,
    "steps": 0,
}


def table(rows: list[Row], seed: int, seconds: float, arguments: str) -> str:
    lines = [
        "# Reliability",
        "",
        f"`python tools/reliability.py{arguments}`, seed {seed}, {seconds:.0f} s on "
        f"{os.cpu_count()} cores, Python {platform.python_version()}.",
        "A run is a VGG-16 of 58,990 parameters on scikit-learn's digits, with a checkpoint every "
        "three steps. Bit-equal: parameters, optimizer, metrics, TensorBoard's events and results "
        "(timing fields apart) are those of the undisturbed run.",
        "",
        "| what | trials | outcome | verdict |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row.what} | {row.trials:,} | {row.outcome} | {'ok' if row.good else '**fails**'} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def table_of_kinds(folder: Path, groups: Sequence[str]) -> str:
    """What was tried of each kind of fault, what came of it, and the tests that hold it."""
    began = time.monotonic()
    small = Small(folder)
    rows = [kind.row() for group in groups for kind in KINDS[group].kinds(small)]
    seconds = time.monotonic() - began
    lines = [
        HEADING,
        "",
        f"`python tools/reliability.py --kinds`, {seconds:.0f} s. A run is three epochs of a "
        "VGG-16 on 64 images of 8x8 in 4 classes, nearly every trial a process of `launch.py` or "
        "several. "
        "The same bits: parameters, optimizer, metrics, TensorBoard's events and results (timing "
        "fields apart). One line: an exit code of 1 or 2, and nothing else on standard error.",
        "",
        "| kind | tried | came of it | held by | verdict |",
        "|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def write(text: str) -> None:
    """Writes one of the page's two tables, and leaves the other as it is."""
    path = REPOSITORY / "results" / "reliability.md"
    before = path.read_text() if path.exists() else ""
    disturbed, heading, kinds = before.partition(HEADING)
    if text.startswith(HEADING):
        path.write_text(f"{disturbed.rstrip()}\n\n{text}".lstrip())
    else:
        path.write_text(f"{text}\n{heading}{kinds}".rstrip() + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small counts; writes no file")
    parser.add_argument("--seed", type=int, default=0, help="of every moment, place and value")
    parser.add_argument(
        "--only", nargs="+", choices=list(FULL), help="these rows alone; writes no file"
    )
    parser.add_argument(
        "--kinds", nargs="*", choices=KINDS, help="the table by kind of fault alone"
    )
    arguments = parser.parse_args()
    counts = QUICK if arguments.quick else FULL
    if arguments.only:
        counts = {name: counts[name] if name in arguments.only else 0 for name in counts}
    jax.config.update("jax_disable_most_optimizations", True)
    seed = arguments.seed
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="collab_jax-reliability-"))
    try:
        if arguments.kinds is not None:
            text = table_of_kinds(folder, arguments.kinds or [*KINDS])
            print(text, end="")
            if not arguments.quick and not arguments.kinds:
                write(text)
            return int("**fails**" in text)
        runs = Disturbed(folder, epochs=4 if arguments.quick else 15)
        reference = folder / "undisturbed"
        runs.measure_startup(reference)
        runs.measure_startup(folder / "again")
        twice = disturbed_rows.same_as(reference, folder / "again")
        first = Row("the same seed twice", 1, "bit-equal" if twice else "differs", twice)

        in_process = threading.Lock()

        def guarded(row: Callable[..., Row], count: int, *given: object) -> Row:
            print(f"{time.monotonic() - began:.0f} s: {row.__name__}", file=sys.__stderr__)
            try:
                # What runs in this process shares its warnings and its compiler.
                with in_process if row.__module__ == bad_input.__name__ else nullcontext():
                    return row(*given, count, seed)
            except Exception:  # The other rows are still worth having.
                traceback.print_exc()
                return Row(row.__name__, count, "the check itself failed", False)

        jobs = {
            "kills": (disturbed_rows.kills, runs, reference),
            "signals": (disturbed_rows.signals, runs, reference),
            "second_signals": (disturbed_rows.second_signals, runs, reference),
            "damages": (bad_input.checkpoints, folder, reference),
            "resumes": (disturbed_rows.resumes, runs, reference),
            "disks": (disturbed_rows.disks, runs, reference),
            "removals": (disturbed_rows.removals, runs, reference),
            "steps": (disturbed_rows.long_run, runs, reference),
            "configs": (bad_input.configs, folder, 4 if arguments.quick else 8),
            "files": (bad_input.data_files, folder, runs.data),
        }
        with ThreadPoolExecutor(2) as pool:
            futures = [
                pool.submit(guarded, job[0], counts[name], *job[1:])
                for name, job in jobs.items()
                if counts[name]
            ]
            rows = [first, *(future.result() for future in futures)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    flags = " --quick" if arguments.quick else ""
    if arguments.only:
        flags += f" --only {' '.join(arguments.only)}"
    text = table(rows, seed, time.monotonic() - began, flags)
    print(text, end="")
    if not flags:
        write(text)
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
