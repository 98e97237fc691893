"""The step time of several versions of the program, one step of each in turn.

Command, on an idle core:
    taskset -c 0 python tools/step_versions.py OTHER_CHECKOUT --width 0.25 --image-size 16 \\
        --methods baseline mid --repeats 20 --output results/step_versions.md

Each version runs in a process of its own; this checkout is the last, and the first is what the
others are compared with, step by step: the median of the ratios of neighbouring steps, which of
them comes first changing each time.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]

_TURNS = """
import json, sys, time
sys.path.insert(0, "")
from collab_jax.benchmark.step_time import prepare
from collab_jax.benchmark.workload import Case

run, found = prepare(Case(**json.loads(sys.argv[1])))
for _ in range(2):
    run()
print(json.dumps(found["flops"]), flush=True)
for _ in sys.stdin:
    began = time.perf_counter()
    run()
    print(time.perf_counter() - began, flush=True)
"""


class Version:
    """A process that runs one step of a case each time that it is asked."""

    def __init__(self, checkout: Path, case: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TURNS, json.dumps(case)],
            cwd=checkout,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.flops = self._answer(checkout)
        self.checkout = checkout

    def close(self) -> None:
        self._process.communicate()

    def step(self) -> float:
        """Seconds of one step."""
        asked: IO[str] = self._process.stdin  # type: ignore[assignment]
        asked.write("\n")
        asked.flush()
        return self._answer(self.checkout)

    def _answer(self, checkout: Path) -> float:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit(f"{checkout}: its step ended; expected a checkout of this program")
        return float(line)


def compare(checkouts: Sequence[Path], case: dict[str, Any], repeats: int) -> list[list[float]]:
    """FLOPs and then the seconds of each step of a case, by version."""
    versions: list[Version] = []
    try:
        for checkout in checkouts:
            versions.append(Version(checkout, case))
        turns = []
        for number in range(repeats):
            order = versions if number % 2 == 0 else versions[::-1]
            seconds = {version: version.step() for version in order}
            turns.append([seconds[version] for version in versions])
    finally:
        for version in versions:
            version.close()
    return [
        [version.flops, *seconds]
        for version, seconds in zip(versions, zip(*turns, strict=True), strict=True)
    ]


def _revision(checkout: Path) -> str:
    asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip() or "of no commit"


def rows(method: str, names: Sequence[str], found: list[list[float]]) -> list[str]:
    """A table's rows: median seconds, and time and FLOPs beside the first version's."""
    flops, first = found[0][0], found[0][1:]
    lines = []
    for name, (own_flops, *seconds) in zip(names, found, strict=True):
        ratio = statistics.median(mine / its for mine, its in zip(seconds, first, strict=True))
        lines.append(
            f"| {method} | {name} | {statistics.median(seconds):.4f} | {ratio:.3f} | "
            f"{own_flops / flops:.3f} |"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("others", type=Path, nargs="+", metavar="OTHER_CHECKOUT")
    parser.add_argument("--names", nargs="+", help="of the versions, this checkout's last")
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--methods", nargs="+", default=["baseline", "mid"])
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--classifier-width", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    checkouts = [path.resolve() for path in (*options.others, ROOT)]
    for path in checkouts:
        if not (path / "collab_jax").is_dir():
            parser.error(f"{path}: no folder collab_jax; expected a checkout of this program")
    names = options.names or [path.name for path in checkouts]
    if len(names) != len(checkouts):
        parser.error(f"--names: {len(names)} names; expected {len(checkouts)}, one a version")
    named = dict(zip(names, checkouts, strict=True))
    others = {str(path): path.name for path in options.others}
    told = [others.get(word, word) for word in argv or sys.argv[1:]]
    lines = [
        "# The step of several versions",
        "",
        f"{options.model}, width {options.width:g}, classifier {options.classifier_width} wide, "
        f"{options.batch_size} images of {options.image_size} pixels, {options.repeats} steps of "
        f"each version in turn; ratios to {names[0]}.",
        "",
        f"Command: `python tools/step_versions.py {shlex.join(told)}`",
        "",
        "Versions: " + ", ".join(f"{n} {_revision(path)}" for n, path in named.items()) + ".",
        "",
        "| method | version | median s | time | FLOPs |",
        "|---|---|---:|---:|---:|",
    ]
    for method in options.methods:
        case = {
            "model": options.model,
            "method": method,
            "batch_size": options.batch_size,
            "image_size": options.image_size,
            "overrides": {
                "model.width": options.width,
                "model.classifier_width": options.classifier_width,
            },
        }
        lines += rows(method, names, compare(checkouts, case, options.repeats))
        print(lines[-1], flush=True)
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
