"""One small training, started again and again under whatever its surroundings bring."""

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from compare_runs import own_lines
from disturbed import one_line
from disturbed_rows import same_as

__all__ = ["Ended", "Kind", "Small", "Tried", "contents", "gathered", "save", "strict_lines"]

REPOSITORY = Path(__file__).resolve().parent.parent
CLASSES = ("bird", "cat", "dog", "fly")
_TIMEOUT = 240
_FLAGS = ("--config=digits_vgg16",)
_CHANGES = {
    "epochs": 3,
    "batch_size": 16,
    "model.width": 0.0625,
    "model.classifier_width": 32,
    "data.validation": 0,
}

# `launch.py`, which signals itself as a step begins: STEP,NAME,SECONDS,NAME,...
_SIGNALLED = """
import os, signal, sys, threading, time
from collab_jax import __main__, cli

first, *rest = sys.argv.pop(1).split(",")
names, waits = rest[::2], [float(text) for text in rest[1::2]]
execute = cli.execute

def send():
    for name, wait in zip(names, [*waits, 0.0]):
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(wait)

def signalled(command):
    from collab_jax.training.batches import Feed

    run = Feed.run

    def run_signalled(self, state, inputs):
        if int(state.step) == int(first):
            threading.Thread(target=send).start()
            time.sleep(0.3)
        return run(self, state, inputs)

    Feed.run = run_signalled
    return execute(command)

cli.execute = signalled
sys.exit(__main__.main())
"""


@dataclass(frozen=True)
class Ended:
    """A process that ended: its exit code and all that it printed."""

    code: int
    text: str
    printed: str


@dataclass(frozen=True)
class Tried:
    """One fault that was brought about.

    Attributes:
      what: in plain words.
      came: what came of it, in the words of the others that ended alike.
      good: whether that is as it should be.
    """

    what: str
    came: str
    good: bool


@dataclass(frozen=True)
class Kind:
    """A kind of fault: all of it that was tried, and the tests that hold it."""

    name: str
    tried: list[Tried]
    tests: tuple[str, ...]

    def row(self) -> str:
        """A line of the table."""
        came = Counter(trial.came if trial.good else "**wrong**" for trial in self.tried)
        wrong = [f"{trial.what}: {trial.came}" for trial in self.tried if not trial.good]
        counts = "; ".join(f"{count} {text}" for text, count in came.items())
        cells = [
            self.name,
            "; ".join(trial.what for trial in self.tried),
            "; ".join([counts, *wrong]),
            ", ".join(f"`{test}`" for test in self.tests),
            "**fails**" if wrong else "ok",
        ]
        whole = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
        return "| " + " | ".join(whole) + " |"


class Small:
    """A VGG-16 of 64 images of 8x8 in 4 classes, three epochs of four steps.

    Args:
      folder: for data, run directories and compiled programs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("JAX_")},
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.data = save(folder / "t.npz")
        self.straight = folder / "straight"
        self.must(self.train(self.straight))
        self.stopped = folder / "stopped"
        if self.train(self.stopped, signals="5,SIGTERM").code != 75:
            raise SystemExit("the run that was to be stopped was not")

    def new(self) -> Path:
        """A folder for one run, which is not there yet."""
        self._count += 1
        return self.folder / f"run-{self._count}"

    def copy(self, run_dir: Path) -> Path:
        """A copy of a run, or of data."""
        return Path(shutil.copytree(run_dir, self.new(), symlinks=True))

    def launch(
        self, *arguments: object, through: str = '"$@"', program: tuple[str, ...] = ("launch.py",),
        timeout: float = _TIMEOUT, **environment: str | None,
    ) -> Ended:  # fmt: skip
        """Runs the command line.

        Args:
          arguments: of it.
          through: shell text in which `"$@"` is the command.
          program: what Python executes.
          timeout: seconds after which it counts as hanging, with exit code 124.
          environment: variables beside the usual ones; None unsets one.
        """
        merged = {**self.environment, **environment}
        command = ["timeout", "-k5", str(timeout), "bash", "-c", through, "bash", sys.executable]
        done = subprocess.run(
            [*command, *program, *map(str, arguments)],
            cwd=REPOSITORY,
            env={key: value for key, value in merged.items() if value is not None},
            capture_output=True,
            text=True,
            errors="replace",
        )
        return Ended(done.returncode, own_lines(done.stderr), done.stdout)

    def train(
        self, run_dir: Path, changes: dict[str, Any] | None = None, *, signals: str = "", **how: Any
    ) -> Ended:
        """Trains, or goes on.

        Args:
          run_dir: the run directory.
          changes: of the training's keys.
          signals: that the process sends itself, `STEP,NAME,SECONDS,NAME,...`.
          **how: see `launch`.
        """
        keys = {"data.name": self.data, **_CHANGES, **(changes or {})}
        if signals:
            how["program"] = ("-c", _SIGNALLED, signals)
        flags = [f"--config.{key}={value}" for key, value in keys.items()]
        return self.launch(*_FLAGS, f"--workdir={run_dir}", *flags, **how)

    def must(self, ended: Ended) -> None:
        if ended.code != 0:
            raise SystemExit(f"what had to work ended with {ended.code}:\n{ended.text}")

    def same(self, what: str, run_dir: Path, ended: Ended, came: str = "") -> Tried:
        """Whether a run ended with the bits of the straight one."""
        good = ended.code == 0 and same_as(self.straight, run_dir)
        return _tried(what, came or "ended with the bits of a straight run", good, ended)

    def refused(
        self, what: str, ended: Ended, *parts: str, code: int = 2, also: bool = True
    ) -> Tried:
        """Whether one line told it, and what else had to hold does.

        Args:
          what: was done.
          ended: the process.
          parts: that the line must hold.
          code: its exit code.
          also: what else had to hold.
        """
        good = ended.code == code and one_line(ended.text) and also
        good = good and all(part in ended.text for part in parts)
        return _tried(what, "told in one line", good, ended)

    def held(self, what: str, came: str, good: bool, ended: Ended) -> Tried:
        """Whether a process that had to succeed did, and what else had to hold does."""
        return _tried(what, came, good and ended.code == 0, ended)


def _tried(what: str, came: str, good: bool, ended: Ended) -> Tried:
    if not good:
        print(f"{what}: exit code {ended.code}\n{ended.text}{ended.printed}", file=sys.stderr)
        came = f"exit code {ended.code}"
    return Tried(what, came, good)


def gathered(*trials: Iterator[Tried]) -> list[Tried]:
    """All that was tried, also where a check itself fails."""
    found = []
    for some in trials:
        try:
            for trial in some:
                print(f"{trial.what}: {trial.came}", file=sys.stderr, flush=True)
                found.append(trial)
        except Exception as error:  # The others are still worth having.
            traceback.print_exc()
            found.append(Tried("the check itself", f"{type(error).__name__}: {error}", False))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for the one that a run is held by."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def save(path: Path, seed: int = 0, **changes: Any) -> Path:
    """Writes 64 + 24 images of 8x8x1 in 4 classes; a change of None leaves an array out."""
    rng = np.random.default_rng(seed)
    labels = np.arange(64) % len(CLASSES)
    arrays = {
        "x_train": rng.integers(0, 256, (64, 8, 8, 1), np.uint8),
        "y_train": labels,
        "x_test": rng.integers(0, 256, (24, 8, 8, 1), np.uint8),
        "y_test": labels[:24],
        **changes,
    }
    with path.open("wb") as file:
        np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    return path


def strict_lines(run_dir: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics; ValueError for what is no JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    path = run_dir / "metrics.jsonl"
    for text in path.read_text().splitlines() if path.exists() else ():
        yield json.loads(text, parse_constant=refuse)
