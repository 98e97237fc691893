"""A method's train step as a run dispatches it: one at a time, and a scanned chunk of them."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from collab_jax.benchmark.gpu.peaks import PRECISIONS
from collab_jax.benchmark.workload import Case
from collab_jax.data import Split
from collab_jax.training.batches import Feed
from collab_jax.training.placement import Placement

__all__ = ["DISPATCHES", "Absent", "Program", "on_cpu", "prepare"]

DISPATCHES = ("step", "chunk")


class Absent(Exception):
    """What a part needs besides is not on this machine: not measured, and no failure."""


class Program:
    """One compiled program of a method.

    Attributes:
      name: the method and the dispatch.
      steps: train steps of a call.
      run: a call, waited for.
      figures: FLOPs of one step, seconds of compilation and the planned peak in bytes.
    """

    def __init__(
        self, name: str, steps: int, run: Callable[[], None], figures: dict[str, Any]
    ) -> None:
        self.name, self.steps, self.run, self.figures = name, steps, run, figures


def on_cpu() -> Any:
    """Computes eagerly on the host, so that initial values take none of the GPU's memory."""
    return jax.default_device(jax.devices("cpu")[0])


def prepare(case: Case, precision: str, chunk: int) -> list[Program]:
    """Compiles a method's programs, which take turns with one state.

    Args:
      case: what to run; its dtype is that of `precision`.
      precision: a name in `PRECISIONS`.
      chunk: steps in a scanned chunk, at least 2.

    Returns:
      One for each of `DISPATCHES`. The images are on the device, as a run has them where they fit.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (chunk * case.batch_size, *case.image_shape), np.uint8)
    labels = rng.integers(0, case.num_classes, len(images)).astype(np.int32)
    placement = Placement(jax.devices()[:1])
    with on_cpu():
        made = case.experiment()
        state = case.init(made)
    feed = Feed(
        Split(images, labels),
        made.settings,
        placement,
        batch_size=case.batch_size,
        seed=0,
        resident="always",
        chunk=chunk,
    )
    held = [placement.replicate(state)]
    # From the second step on, what is left of the epoch is dispatched step by step.
    inputs = {
        "step": [x for _, x in feed.inputs(0, 1)],
        "chunk": [x for _, x in feed.inputs(0, 0)],
    }
    programs, flops = [], None
    for dispatch in DISPATCHES:
        with jax.default_matmul_precision(PRECISIONS[precision][1]):
            lowered = feed.lower(held[0], inputs[dispatch][0])
        if flops is None:
            cost: Any = lowered.cost_analysis()
            flops = cost["flops"]
        began = time.perf_counter()
        compiled = lowered.compile()
        seconds = time.perf_counter() - began

        def run(compiled: Any = compiled, batches: Any = inputs[dispatch]) -> None:
            for batch in batches:
                held[0], _ = feed.run_compiled(compiled, held[0], batch)
            jax.block_until_ready(held[0])

        steps = chunk if dispatch == "chunk" else len(inputs[dispatch])
        figures = {
            "method": case.method,
            "dispatch": dispatch,
            "flops": flops,
            "compile_seconds": round(seconds, 2),
            "planned_bytes": _planned(compiled),
        }
        programs.append(Program(f"{case.method}, {dispatch}", steps, run, figures))
    return programs


def _planned(compiled: Any) -> int | None:
    memory = compiled.memory_analysis()
    return None if memory is None else int(memory.peak_memory_in_bytes)
