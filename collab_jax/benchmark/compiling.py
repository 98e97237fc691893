"""Compiles one train step for a GPU that is not there; a program of its own.

It reads a case and a GPU's name as JSON from standard input and writes its figures as one line of
JSON to standard output. An unfit target description ends the process that compiles, hence a child.
"""

import json
import re
import sys
import time
from functools import partial
from typing import Any

import jax
from jax.experimental import topologies

from collab_jax.benchmark.collectives import collectives, summary
from collab_jax.benchmark.gpus import GPUS
from collab_jax.benchmark.workload import Case
from collab_jax.training.placement import Placement

__all__ = ["compile_for", "count_operations"]


def count_operations(text: str) -> dict[str, int]:
    """Convolutions and matrix products in an optimised program's text."""
    return {
        "convolutions": len(re.findall(r'custom_call_target="__cudnn\$conv', text)),
        "matrix_products": len(re.findall(r" dot\(|custom_call_target=\"__cublas", text)),
    }


def compile_for(case: Case, gpu: str, devices: int = 1) -> dict[str, Any]:
    """Plans a case's train step, its state donated as in training.

    Args:
      case: what to compile.
      gpu: a name in `targets.GPUS`.
      devices: how many of them the batch is split over; the memory is that of one.

    Returns:
      Counts, FLOPs and planned memory in bytes.
    """
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=GPUS[gpu].target_config(), topology=f"1x1x{devices}"
    )
    device: Any = topology.devices[0]
    assert device.client.runtime_type == "compile_only_runtime"
    placement = Placement(topology.devices)
    step, init = case.step_and_init()
    shapes = (jax.eval_shape(init), case.abstract_batch())
    arguments = tuple(
        jax.tree.map(partial(_placed, sharding=sharding), tree)
        for tree, sharding in zip(shapes, (placement.everywhere, placement.split()), strict=True)
    )
    jitted = jax.jit(step, donate_argnums=0)
    for_devices = jax.jit(step, donate_argnums=0, out_shardings=placement.everywhere)
    # The compile-only client has no cost analysis: the CPU's reads the program for the GPU.
    for_gpu = jitted.trace(*shapes).lower(lowering_platforms=("cuda",))
    cost: Any = for_gpu.cost_analysis()
    began = time.perf_counter()
    compiled = for_devices.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    memory: Any = compiled.memory_analysis()
    state, _ = arguments
    parts = {"params": state.params, "heads": state.heads, "optimizer": state.opt_state}
    text = compiled.as_text() or ""
    return {
        **count_operations(text),
        "devices": devices,
        "collectives": summary(collectives(text)),
        "flops": cost["flops"],
        "peak_bytes": memory.peak_memory_in_bytes,
        "state_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        **{f"{name}_bytes": _size(tree) for name, tree in parts.items()},
        "compile_seconds": round(seconds, 1),
    }


def _placed(leaf: Any, sharding: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _size(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def main() -> None:
    request = json.load(sys.stdin)
    case = Case(**request["case"])
    print(json.dumps(compile_for(case, request["gpu"], request["devices"])))


if __name__ == "__main__":
    main()
