"""A train step of several versions of the package, in turn, and FLOPs beside it.

    python tools/step_versions.py --checkout OLD . --width 0.25 --image-size 16

Each version runs in a process of its own, which waits while another one's step runs. Times are the
processor's, of all threads, so that other work on the same cores counts little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("baseline", "out", "mid", "pull_push", "kernel", "out+mid+pull_push+kernel")

_SERVE = """
import json, sys, time
from collab_jax.benchmark.step_time import prepare
from collab_jax.benchmark.workload import Case

steps = {}
for case in json.loads(sys.stdin.readline()):
    steps[case["method"]], extra = prepare(Case(**case))
    print(json.dumps(extra), flush=True)
for method in map(str.strip, sys.stdin):
    began = time.process_time()
    steps[method]()
    print(json.dumps(time.process_time() - began), flush=True)
"""


class Version:
    """A checkout's train steps, compiled in a process that runs one whenever it is asked to."""

    def __init__(self, checkout: Path, cases: Sequence[dict[str, Any]]) -> None:
        environment = {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            cwd=checkout,
            env=os.environ | environment | {"PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say(json.dumps(cases))
        self.flops = {case["method"]: self._hear()["flops"] for case in cases}

    def step(self, method: str) -> float:
        """Runs one step; the processor's seconds."""
        self._say(method)
        return self._hear()

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process ended: exit code {self._process.wait()}")
        return json.loads(line)


def table(versions: Sequence[Version], methods: Sequence[str], repeats: int) -> str:
    """Medians beside those of the first version and of the first method."""
    seconds: dict[tuple[int, str], list[float]] = {}
    for repeat in range(-2, repeats):
        for method in methods:
            for number, version in enumerate(versions):
                found = version.step(method)
                if repeat >= 0:
                    seconds.setdefault((number, method), []).append(found)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    lines = [
        "| version | method | median ms | least ms | / first version | FLOPs / first version "
        f"| / {methods[0]} | FLOPs / {methods[0]} | time / FLOPs |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (number, method), median in medians.items():
        flops = versions[number].flops
        time_share, flop_share = (
            median / medians[number, methods[0]],
            flops[method] / flops[methods[0]],
        )
        figures = (
            f"{1e3 * median:.1f}",
            f"{1e3 * min(seconds[number, method]):.1f}",
            f"{median / medians[0, method]:.2f}",
            f"{flops[method] / versions[0].flops[method]:.2f}",
            f"{time_share:.2f}",
            f"{flop_share:.2f}",
            f"{time_share / flop_share:.2f}",
        )
        lines.append(f"| {number + 1} | {method} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="A train step of several versions, in turn.")
    parser.add_argument("--checkout", type=Path, nargs="+", default=[ROOT])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    cases = [
        {
            "model": options.model,
            "method": method,
            "batch_size": options.batch_size,
            "image_size": options.image_size,
            "overrides": {"model.width": options.width},
        }
        for method in options.methods
    ]
    versions = [Version(checkout.resolve(), cases) for checkout in options.checkout]
    print(table(versions, options.methods, options.repeats))


if __name__ == "__main__":
    main()
