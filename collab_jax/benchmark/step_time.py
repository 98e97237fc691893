"""Train steps timed on this machine, every method in turn with the baseline."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from collab_jax.benchmark.markdown import heading, table
from collab_jax.benchmark.report import name_of
from collab_jax.benchmark.workload import Case

__all__ = ["markdown", "measure", "prepare", "time_in_turn"]


def prepare(case: Case) -> tuple[Callable[[], None], dict[str, Any]]:
    """Compiles a case's train step for this machine.

    Args:
      case: what to run.

    Returns:
      A function that runs one step and waits for it, and the compile time in seconds with the
      program's FLOPs.
    """
    import jax

    step, init = case.step_and_init()
    state, batch = init(), case.batch()
    lowered = jax.jit(step, donate_argnums=0).lower(state, batch)
    began = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    cost: Any = compiled.cost_analysis()
    held = [state]

    def run() -> None:
        held[0], _ = compiled(held[0], batch)
        jax.block_until_ready(held[0])

    return run, {"compile_seconds": seconds, "flops": cost["flops"]}


def time_in_turn(
    steps: dict[str, Callable[[], None]], repeats: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Times functions in turn, so that whatever else the machine does falls on all alike.

    Args:
      steps: functions by name.
      repeats: how often each is timed.
      warm_up: calls of each before, which are left out.

    Returns:
      Seconds of every call, by name.
    """
    for run in steps.values():
        for _ in range(warm_up):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, run in steps.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def measure(
    cases: Sequence[Case], *, repeats: int, against_torch: bool = False
) -> list[dict[str, Any]]:
    """Times cases of one batch size in turn, and PyTorch's baseline with them if asked for.

    Args:
      cases: what to run; the first is what the others are compared with.
      repeats: timed steps of each.
      against_torch: whether to time PyTorch's VGG-16 too; its own parameters are those of the
        first case.

    Returns:
      One row each: name, median, fastest and slowest step in seconds, images a second, compile
      seconds, FLOPs and peak host memory in bytes, the last from a process of its own.
    """
    names = [name_of({"method": case.method, "overrides": _own(case, cases[0])}) for case in cases]
    prepared = {name: prepare(case) for name, case in zip(names, cases, strict=True)}
    steps = {name: run for name, (run, _) in prepared.items()}
    if against_torch:
        from collab_jax.benchmark.torch_vgg import torch_step

        first = cases[0]
        steps["PyTorch baseline"] = torch_step(
            batch_size=first.batch_size,
            image_size=first.image_size,
            num_classes=first.num_classes,
            width=first.overrides.get("model.width", 1.0),
            classifier_width=first.overrides.get("model.classifier_width", 4096),
        )
    seconds = time_in_turn(steps, repeats)
    rows = []
    for name, values in seconds.items():
        median = statistics.median(values)
        extra = prepared[name][1] if name in prepared else {}
        rows.append(
            {
                "name": name,
                "median": median,
                "fastest": min(values),
                "slowest": max(values),
                "images_per_second": cases[0].batch_size / median,
                **extra,
            }
        )
    for row, case in zip(rows, cases, strict=False):
        row["peak_bytes"] = _peak_host_memory(case)
    return rows


def _own(case: Case, first: Case) -> dict[str, Any]:
    """A case's keys that the first one does not have."""
    return {k: v for k, v in case.overrides.items() if first.overrides.get(k) != v}


def _peak_host_memory(case: Case) -> int:
    """Peak resident memory of a process that compiles a case and runs three steps."""
    done = subprocess.run(
        [sys.executable, "-m", "collab_jax.benchmark.step_time"],
        input=json.dumps(case.to_json()),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def markdown(rows: Sequence[dict[str, Any]], title: str, command: str) -> str:
    """The rows as a table.

    Args:
      rows: what `measure` returned.
      title: the model and the batch.
      command: what made them.

    Returns:
      The text.
    """
    import jax

    first = rows[0]
    about = (
        f"{title}. {platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}; "
        "methods in turn, warm-up left out. Peak memory is that of a process of its own."
    )
    columns = (
        *("", "median s", "fastest s", "slowest s", "median / baseline", "FLOPs / baseline"),
        *("images/s", "compile s", "peak host MiB"),
    )
    cells = []
    for row in rows:
        ours = "flops" in row
        cells.append(
            (
                row["name"],
                *(f"{row[name]:.3f}" for name in ("median", "fastest", "slowest")),
                f"{row['median'] / first['median']:.2f}",
                f"{row['flops'] / first['flops']:.2f}" if ours else "",
                f"{row['images_per_second']:.0f}",
                f"{row['compile_seconds']:.1f}" if ours else "",
                f"{row['peak_bytes'] / 2**20:.0f}" if ours else "",
            )
        )
    lines = heading("Measured cost of a train step", about, command) + table(columns, cells)
    return "\n".join(lines) + "\n"


def main() -> None:
    run, _ = prepare(Case(**json.load(sys.stdin)))
    for _ in range(3):
        run()
    # Not getrusage's figure, which begins with that of the process that started this one.
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    print(int(line.split()[1]) * 1024)


if __name__ == "__main__":
    main()
