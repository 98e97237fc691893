"""Kills, signals, damage, full disks and bad input against real runs, as a table.

    python tools/reliability.py            full counts, writes results/reliability.md
    python tools/reliability.py --quick    small counts, prints the table alone

Every run is a process of `launch.py` on scikit-learn's digits. A full disk is a small tmpfs, which
takes the right to mount one; without it the row says so.
"""

import argparse
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tools")]

import bad_input  # noqa: E402
from disturbed import (  # noqa: E402
    Disturbed,
    damage,
    ended,
    half_written,
    kill,
    one_line,
    random_file,
    remove,
)
from reliability_row import Row  # noqa: E402
from runs import assert_same_run  # noqa: E402

from collab_jax.checkpoint import checkpoint_dir, complete_steps  # noqa: E402

FULL = {
    "kills": 30,
    "signals": 10,
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
    "damages": 12,
    "resumes": 1,
    "disks": 1,
    "removals": 1,
    "configs": 60,
    "files": 60,
    "steps": 0,
}


def same_as(reference: Path, run_dir: Path) -> bool:
    try:
        assert_same_run(reference, run_dir)
    except AssertionError as error:
        print(f"{run_dir}: {error}", file=sys.stderr)
        return False
    return True


def kills(runs: Disturbed, reference: Path, count: int, seed: int) -> Row:
    rng = random.Random(seed)
    done = halves = trainings = same = 0
    while done < count:
        run_dir = runs.folder / f"killed-{trainings}"
        trainings += 1
        while done < count:
            process = runs.start(run_dir)
            if not runs.wait_for_moment(process, run_dir, done, rng):
                if ended(process)[0] != 0:
                    return Row("kill -9", done, f"a restart failed in {run_dir}", False)
                break
            kill(process)
            done += 1
            halves += bool(half_written(run_dir))
        code, _ = runs.finish(run_dir)
        same += code == 0 and same_as(reference, run_dir)
    return Row(
        "kill -9 at a random moment (start, checkpoint being written, training)",
        done,
        f"{halves} left a half-written checkpoint; {same} of {trainings} trainings end bit-equal",
        same == trainings,
    )


def signals(runs: Disturbed, reference: Path, count: int, seed: int) -> Row:
    rng = random.Random(seed)
    done = coded = saved = early = trainings = same = 0
    while done < count:
        run_dir = runs.folder / f"stopped-{trainings}"
        trainings += 1
        while done < count:
            process = runs.start(run_dir)
            # From the second second on: before the first, the interpreter itself starts.
            if not runs.wait_for_moment(process, run_dir, 3 * done + (done % 5 > 0) * 2, rng):
                ended(process)
                break
            process.terminate()
            code, text = ended(process)
            if code == 0:
                break  # The signal came after the last step.
            done += 1
            coded += code == 75
            latest = max(complete_steps(checkpoint_dir(run_dir)), default=0)
            early += "before" in text
            saved += f"after step {latest}, which is saved" in text or "before" in text
        code, _ = runs.finish(run_dir)
        same += code == 0 and same_as(reference, run_dir)
    return Row(
        "SIGTERM at a random moment",
        done,
        f"{coded} exit with 75; {saved - early} saved the step they were in, {early} came before "
        f"training; {same} of {trainings} trainings end bit-equal",
        coded == saved == done and same == trainings,
    )


def resumes(runs: Disturbed, reference: Path, count: int, seed: int) -> Row:
    rng = random.Random(seed)
    told = same = 0
    for trial in range(count):
        run_dir = runs.folder / f"damaged-{trial}"
        process = runs.start(run_dir)
        runs.wait_for_checkpoint(process, run_dir, 6)
        process.terminate()
        ended(process)
        steps = complete_steps(checkpoint_dir(run_dir))
        damage(random_file(checkpoint_dir(run_dir) / str(steps[-1]), rng), rng)
        code, text = runs.finish(run_dir)
        told += one_line(text, "warning: ") and f"going on from {checkpoint_dir(run_dir)}" in text
        same += code == 0 and same_as(reference, run_dir)
    return Row(
        "resumed by `launch.py` after damage to the newest checkpoint",
        count,
        f"{told} warned in one line and fell back; {same} end bit-equal",
        told == same == count,
    )


def disks(runs: Disturbed, reference: Path, count: int, seed: int) -> Row:
    what = "full disk (tmpfs), then more room"
    rng = random.Random(seed)
    told = same = 0
    for trial in range(count):
        disk = runs.folder / f"disk-{trial}"
        disk.mkdir()
        kilobytes = rng.randrange(800, 2400)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            return Row(what, 0, "not run: this machine lets no tmpfs be mounted", True)
        try:
            code, text = runs.finish(disk / "run")
            told += code == 1 and one_line(text)
            if not (code == 1 and one_line(text)):
                print(f"disk of {kilobytes} KB, exit code {code}:\n{text}", file=sys.stderr)
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            code, _ = runs.finish(disk / "run")
            same += code == 0 and same_as(reference, disk / "run")
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=False)
    outcome = f"{told} exit with 1 and one line that says what is kept; {same} then end bit-equal"
    return Row(what, count, outcome, told == same == count)


def removals(runs: Disturbed, reference: Path, count: int, seed: int) -> Row:
    rng = random.Random(seed)
    told = gone = 0
    for trial in range(count):
        run_dir = runs.folder / f"removed-{trial}"
        process = runs.start(run_dir)
        runs.wait_for_checkpoint(process, run_dir, 0)
        time.sleep(rng.uniform(0.0, 0.5))
        remove(run_dir)
        code, text = ended(process)
        told += code == 1 and one_line(text)
        gone += not (run_dir / "result.json").exists()
        if not (code == 1 and one_line(text)):
            print(f"directory removed, exit code {code}:\n{text}", file=sys.stderr)
    return Row(
        "run directory removed under way",
        count,
        f"{told} exit with 1 and one line; {gone} leave no result behind",
        told == gone == count,
    )


def long_run(runs: Disturbed, reference: Path, steps: int, seed: int) -> Row:
    """RssAnon: memory-mapped pages, which the kernel takes back, are not counted."""
    run_dir = runs.folder / "long"
    process = runs.start(
        run_dir, f"epochs={steps // 4}", "decay_epochs=5", "checkpoint.every_steps=100",
        "checkpoint.every_epochs=0", "eval_every=25",
    )  # fmt: skip
    runs.wait_for_checkpoint(process, run_dir, 0)
    samples: list[int] = []
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            samples += [int(x.split()[1]) for x in status.splitlines() if x.startswith("RssAnon")]
        except OSError:
            break
        time.sleep(0.2)
    code, _ = ended(process)
    quarter = max(len(samples) // 4, 1)
    parts = samples[quarter : 2 * quarter], samples[-quarter:]
    first, last = (sorted(part)[len(part) // 2] / 1024 for part in parts)
    files = sum(path.is_file() for path in run_dir.rglob("*"))
    log = (run_dir / "metrics.jsonl").stat().st_size / 1024
    return Row(
        f"{steps:,} steps in one process",
        1,
        f"RssAnon {first:.0f} MiB in the second quarter, {last:.0f} MiB in the last; "
        f"{files} files, "
        f"{len(complete_steps(checkpoint_dir(run_dir)))} checkpoints; metrics.jsonl {log:.0f} KiB",
        code == 0 and last < first + 16 and files < 200,
    )


def table(rows: list[Row], seed: int, seconds: float, arguments: str) -> str:
    lines = [
        "# Reliability",
        "",
        f"`python tools/reliability.py{arguments}`, seed {seed}, {seconds:.0f} s on "
        f"{os.cpu_count()} cores, Python {platform.python_version()}.",
        "A run is a VGG-16 of 58,990 parameters on scikit-learn's digits, with a checkpoint every "
        "three steps. Bit-equal: parameters, optimizer, metrics and results (timing fields apart) "
        "are those of the undisturbed run.",
        "",
        "| what | trials | outcome | verdict |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row.what} | {row.trials:,} | {row.outcome} | {'ok' if row.good else '**fails**'} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small counts; writes no file")
    parser.add_argument("--seed", type=int, default=0, help="of every moment, place and value")
    arguments = parser.parse_args()
    counts = QUICK if arguments.quick else FULL
    seed = arguments.seed
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="collab_jax-reliability-"))
    try:
        runs = Disturbed(folder, epochs=4 if arguments.quick else 15)
        reference = folder / "undisturbed"
        runs.measure_startup(reference)
        runs.measure_startup(folder / "again")
        twice = same_as(reference, folder / "again")
        first = Row("the same seed twice", 1, "bit-equal" if twice else "differs", twice)

        in_process = threading.Lock()

        def guarded(row: Callable[..., Row], count: int, *given: object) -> Row:
            print(f"{time.monotonic() - began:.0f} s: {row.__name__}", file=sys.stderr)
            try:
                # What runs in this process shares its warnings and its compiler.
                with in_process if row.__module__ == bad_input.__name__ else nullcontext():
                    return row(*given, count, seed)
            except Exception:  # The other rows are still worth having.
                traceback.print_exc()
                return Row(row.__name__, count, "the check itself failed", False)

        jobs = {
            "kills": (kills, runs, reference),
            "signals": (signals, runs, reference),
            "damages": (bad_input.checkpoints, folder, reference),
            "resumes": (resumes, runs, reference),
            "disks": (disks, runs, reference),
            "removals": (removals, runs, reference),
            "configs": (bad_input.configs, folder),
            "files": (bad_input.data_files, folder, runs.data),
            "steps": (long_run, runs, reference),
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
    text = table(rows, seed, time.monotonic() - began, flags)
    print(text, end="")
    if not arguments.quick:
        (REPOSITORY / "results").mkdir(exist_ok=True)
        (REPOSITORY / "results" / "reliability.md").write_text(text)
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
