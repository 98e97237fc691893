"""Runs of `launch.py` that are killed, stopped, damaged, or robbed of their disk."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from compare_runs import own_lines

from collab_jax import data
from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps

REPOSITORY = Path(__file__).resolve().parent.parent
TIMEOUT = 300.0
_POLL = 0.004

# `launch.py`, which also keeps in a file the number of the step that it has begun.
_COUNTED = """
import os, sys
from collab_jax import __main__, cli

file = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT)
execute = cli.execute

def counted(command):
    from collab_jax.training.batches import Feed

    run, begun = Feed.run, []

    def run_counted(self, state, inputs):
        begun.append(begun[-1] + 1 if begun else int(state.step) + 1)
        os.pwrite(file, b"%9d" % begun[-1], 0)
        return run(self, state, inputs)

    Feed.run = run_counted
    return execute(command)

cli.execute = counted
sys.exit(__main__.main())
"""


class Disturbed:
    """Starts one small training again and again, in several run directories.

    Args:
      folder: for run directories, data and compiled programs.
      epochs: of four steps each.
    """

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder, self.epochs = folder, epochs
        self.data = folder / "digits.npz"
        digits = data.load("digits")
        np.savez(
            self.data,
            x_train=digits.train.images,
            y_train=digits.train.labels,
            x_test=digits.test.images,
            y_test=digits.test.labels,
        )
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.startup = 5.0

    def start(
        self, run_dir: Path, *changes: str, counter: Path | None = None
    ) -> subprocess.Popen[str]:
        """Starts a run, or goes on with it.

        Args:
          run_dir: the run directory.
          changes: `key=value`, beside the training's own.
          counter: a file for the number of the step begun, see `begun`.

        Returns:
          The process; its standard error is piped.
        """
        overrides = {
            "epochs": self.epochs,
            "decay_epochs": self.epochs // 2,
            "batch_size": 64,
            "data.name": self.data,
            "data.train_examples": 256,
            "data.label_noise": 0.1,
            "model.width": 0.0625,
            "model.classifier_width": 16,
            "checkpoint.every_steps": 3,
            **dict(change.split("=", 1) for change in changes),
        }
        program = ["launch.py"] if counter is None else ["-c", _COUNTED, str(counter)]
        command = [sys.executable, *program, "--config=digits_vgg16:out", f"--workdir={run_dir}"]
        command += [f"--config.{key}={value}" for key, value in overrides.items()]
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, run_dir: Path, *changes: str) -> tuple[int, str]:
        """Runs undisturbed to the end: exit code and what it printed."""
        return ended(self.start(run_dir, *changes))

    def measure_startup(self, run_dir: Path) -> None:
        """Runs to the end, and notes how long it took to the first checkpoint."""
        process = self.start(run_dir)
        began = time.monotonic()
        self.wait_for_checkpoint(process, run_dir, 0)
        self.startup = time.monotonic() - began
        code, text = ended(process)
        if code != 0:
            raise SystemExit(f"the undisturbed run failed with {code}: {text}")

    def wait_for_checkpoint(
        self, process: subprocess.Popen[str], run_dir: Path, after: int
    ) -> bool:
        """Waits for a complete checkpoint of a later step; False if the process ends before."""
        while process.poll() is None:
            if max(complete_steps(checkpoint_dir(run_dir)), default=0) > after:
                return True
            time.sleep(_POLL)
        return False

    def wait_for_writing(self, process: subprocess.Popen[str], run_dir: Path) -> bool:
        """Waits until a checkpoint is half-written; False if the process ends before."""
        # What an earlier life left half-written is removed at the start; wait for this life's own.
        latest = max(complete_steps(checkpoint_dir(run_dir)), default=0)
        if not self.wait_for_checkpoint(process, run_dir, latest):
            return False
        while process.poll() is None:
            if half_written(run_dir):
                return True
            time.sleep(_POLL / 4)
        return False

    def wait_for_moment(
        self, process: subprocess.Popen[str], run_dir: Path, trial: int, rng: random.Random
    ) -> bool:
        """Waits for a random moment: of the start, of a checkpoint's writing, or of the training.

        Returns:
          Whether the process still runs.
        """
        if trial % 3 == 0:
            time.sleep(rng.uniform(1.0, max(1.1, 1.2 * self.startup)))
        elif trial % 3 == 1:
            self.wait_for_writing(process, run_dir)
            time.sleep(rng.uniform(0.0, 0.03))
        else:
            latest = max(complete_steps(checkpoint_dir(run_dir)), default=0)
            self.wait_for_checkpoint(process, run_dir, latest)
            time.sleep(rng.uniform(0.0, 0.8))
        return process.poll() is None


def ended(process: subprocess.Popen[str], timeout: float = TIMEOUT) -> tuple[int, str]:
    """Exit code (-1000 where it had to be killed as it hung) and standard error."""
    try:
        _, text = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        _, text = process.communicate()
        return -1000, text
    return process.returncode, text


def begun(counter: Path) -> int:
    """The step that a counted process has begun; 0 before the first."""
    return int(counter.read_bytes() or 0) if counter.exists() else 0


def half_written(run_dir: Path) -> list[str]:
    """Folders of checkpoints that are not complete."""
    directory = checkpoint_dir(run_dir)
    complete = {str(step) for step in complete_steps(directory)}
    return [path.name for path in directory.glob("*") if path.name not in complete]


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def one_line(text: str, start: str = "error: ") -> bool:
    """Whether one line tells it, and all others are a run's summary and epochs."""
    usual = (" ", "collab_jax ", "compiling ", "the train step is compiled", "epoch ", "finished")
    unusual = [line for line in own_lines(text).splitlines() if not line.startswith(usual)]
    return len(unusual) == 1 and unusual[0].startswith(start)


def damage(path: Path, rng: random.Random) -> str:
    """Flips a byte of a file at a random place, or cuts it off there; says which."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.3:
        path.write_bytes(content[:place])
        return "cut"
    content[place] ^= rng.randrange(1, 256)
    path.write_bytes(content)
    return "flip"


def random_file(folder: Path, rng: random.Random) -> Path:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)
    return rng.choice(files)


def remove(folder: Path) -> None:
    """Removes a folder in which another process still writes."""
    for _ in range(1000):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
