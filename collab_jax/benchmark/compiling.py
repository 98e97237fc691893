"""Compiles one train step for a GPU that is not there; a program of its own.

It reads a case and a GPU's name as JSON from standard input and writes its figures as one line of
JSON to standard output. An unfit target description ends the process that compiles, hence a child.
"""

import json
import re
import sys
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from collab_jax.benchmark.case import Case
from collab_jax.benchmark.targets import GPUS

__all__ = ["compile_for", "count_operations"]


def count_operations(text: str) -> dict[str, int]:
    """Convolutions and matrix products in an optimised program's text."""
    return {
        "convolutions": len(re.findall(r'custom_call_target="__cudnn\$conv', text)),
        "matrix_products": len(re.findall(r" dot\(|custom_call_target=\"__cublas", text)),
    }


def compile_for(case: Case, gpu: str) -> dict[str, Any]:
    """Plans a case's train step, its state donated as in training.

    Args:
      case: what to compile.
      gpu: a name in `targets.GPUS`.

    Returns:
      Counts, FLOPs and planned memory in bytes.
    """
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=GPUS[gpu].target_config(), topology="1x1x1"
    )
    device: Any = topology.devices[0]
    assert device.client.runtime_type == "compile_only_runtime"
    mesh = Mesh(np.array(topology.devices).reshape(1), ("device",))
    sharding = NamedSharding(mesh, PartitionSpec())
    step, init = case.step_and_init()
    shapes = (jax.eval_shape(init), case.abstract_batch())
    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )
    jitted = jax.jit(step, donate_argnums=0)
    # The compile-only client has no cost analysis: the CPU's reads the program for the GPU.
    for_gpu = jitted.trace(*shapes).lower(lowering_platforms=("cuda",))
    cost: Any = for_gpu.cost_analysis()
    began = time.perf_counter()
    compiled = jitted.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    memory: Any = compiled.memory_analysis()
    state, _ = arguments
    parts = {"params": state.params, "heads": state.heads, "optimizer": state.opt_state}
    return {
        **count_operations(compiled.as_text() or ""),
        "flops": cost["flops"],
        "peak_bytes": memory.peak_memory_in_bytes,
        "state_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        **{f"{name}_bytes": _size(tree) for name, tree in parts.items()},
        "compile_seconds": round(seconds, 1),
    }


def _size(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def main() -> None:
    request = json.load(sys.stdin)
    print(json.dumps(compile_for(Case(**request["case"]), request["gpu"])))


if __name__ == "__main__":
    main()
