"""Rows of the table that `reliability.py` prints: what is done to running processes."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from compare_runs import assert_same_run
from disturbed import (
    Disturbed,
    begun,
    damage,
    ended,
    half_written,
    kill,
    one_line,
    random_file,
    remove,
)
from reliability_row import Row

from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps
from collab_jax.runs.tensorboard import read_events


def scalars(run_dir: Path) -> list[tuple[str, int, float]]:
    """What TensorBoard shows of a run, timing apart."""
    (path,) = (run_dir / "tensorboard").iterdir()
    return [
        (value.tag, event.step, value.simple_value)
        for event in read_events(path)
        for value in event.summary.value
        if not value.tag.endswith(("images_per_second", "wait_fraction"))
    ]


def same_as(reference: Path, run_dir: Path) -> bool:
    try:
        assert_same_run(reference, run_dir)
        assert scalars(reference) == scalars(run_dir), "TensorBoard's events differ"
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
    lost, more = [0], [0]
    while done < count:
        run_dir = runs.folder / f"stopped-{trainings}"
        trainings += 1
        while done < count:
            counter = runs.folder / "begun"
            counter.unlink(missing_ok=True)
            process = runs.start(run_dir, counter=counter)
            # From the second second on: before the first, the interpreter itself starts.
            if not runs.wait_for_moment(process, run_dir, 3 * done + (done % 5 > 0) * 2, rng):
                ended(process)
                break
            before = begun(counter)
            process.terminate()
            code, text = ended(process)
            if code == 0:
                break  # The signal came after the last step.
            done += 1
            coded += code == 75
            latest = max(complete_steps(checkpoint_dir(run_dir)), default=0)
            early += "with nothing to save" in text or "before the first step" in text
            saved += f"after step {latest}, which is saved" in text
            lost.append(begun(counter) - latest)
            more.append(begun(counter) - before if before else 0)
        code, _ = runs.finish(run_dir)
        same += code == 0 and same_as(reference, run_dir)
    return Row(
        "SIGTERM at a random moment",
        done,
        f"{coded} exit with 75; {saved} saved the step they were in, {early} came before one; "
        f"at most {max(lost)} steps begun and not saved, at most {max(more)} begun after "
        f"the signal; {same} of {trainings} trainings end bit-equal",
        coded == saved + early == done and same == trainings and max(lost) <= 1 and max(more) <= 1,
    )


def second_signals(runs: Disturbed, reference: Path, count: int, seed: int) -> Row:
    """Ctrl-C twice, more than a second apart: the process then ends, whatever is being written."""
    rng = random.Random(seed)
    at_once = same = 0
    slowest = 0.0
    for trial in range(count):
        run_dir = runs.folder / f"twice-{trial}"
        process = runs.start(run_dir)
        runs.wait_for_checkpoint(process, run_dir, 0)
        for wait in (rng.uniform(0.0, 0.2), rng.uniform(1.0, 1.1)):
            time.sleep(wait)
            process.send_signal(signal.SIGINT)
        began = time.monotonic()
        code, _ = ended(process)
        seconds = time.monotonic() - began
        slowest = max(slowest, seconds)
        # 75: the first had done its work before the second came.
        at_once += code in (128 + signal.SIGINT, 75) and seconds < 3.0
        code, _ = runs.finish(run_dir)
        same += code == 0 and same_as(reference, run_dir)
    return Row(
        "SIGINT twice",
        count,
        f"{at_once} end at once (the slowest after {slowest:.2f} s); {same} resumed end bit-equal",
        at_once == same == count,
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
