"""One train step on the GPU beside the same step on this machine's CPU."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from collab_jax.benchmark.gpu.programs import on_cpu
from collab_jax.benchmark.workload import Case

__all__ = ["BOUNDS", "compared", "differences", "parity"]

BOUNDS = {"loss": 1e-5, "gradients": 1e-2, "statistics": 1e-4}
"""Largest allowed difference: of the loss and each term relative to the CPU's; of each array of
the gradients (with weight decay: the momentum after one step) and of batch norm's running
statistics relative to the largest value in the CPU's array."""


def parity(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Takes a step from the same state on both.

    Args:
      cell: `case`, a Case as JSON.

    Returns:
      What `compared` does, with the devices' names.
    """
    case = Case(**cell["case"])
    with on_cpu():
        step, init = case.step_and_init()
        state, batch = jax.device_get((init(), case.batch()))
    devices = (jax.devices("cpu")[0], jax.devices()[0])
    found = []
    for device in devices:
        with jax.default_matmul_precision("highest"):
            after = jax.jit(step)(*jax.device_put((state, batch), device))
        found.append(jax.device_get(after[0]))
    return {"devices": [d.device_kind for d in devices], **compared(*found)}


def compared(reference: Any, state: Any) -> dict[str, Any]:
    """Two states after the same first step.

    Returns:
      By name of `BOUNDS` the largest difference and where it is, and whether all are within.
    """
    sums = ({k: v for k, v in s.sums.items() if k not in _COUNTS} for s in (reference, state))
    worst = {
        "loss": differences(*sums),
        "gradients": differences(reference.opt_state, state.opt_state),
        "statistics": differences(reference.batch_stats, state.batch_stats),
    }
    figures: dict[str, Any] = {"loss_cpu": float(reference.sums["loss"])}
    for name, values in worst.items():
        where = max(values, key=lambda key: values[key])
        figures[name] = {"largest": values[where], "where": where, "arrays": len(values)}
    within = all(figures[name]["largest"] <= bound for name, bound in BOUNDS.items())
    return {**figures, "within": within}


# Counts of examples: one that stands on a boundary falls on either side.
_COUNTS = ("steps", "skipped", "top1_wrong", "top5_wrong")


def differences(reference: Any, tree: Any) -> dict[str, float]:
    """The largest difference of each floating array relative to the reference's largest value.

    Where the reference is zero throughout, the difference itself; infinite for what is not finite.
    """
    pairs = zip(jax.tree_util.tree_leaves_with_path(reference), jax.tree.leaves(tree), strict=True)
    found = {}
    for (path, first), second in pairs:
        if not np.issubdtype(np.asarray(first).dtype, np.floating) or not np.size(first):
            continue
        first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
        scale = np.abs(first).max() or 1.0
        value = float(np.abs(first - second).max() / scale)
        found[jax.tree_util.keystr(path)] = value if np.isfinite(value) else float("inf")
    return found
