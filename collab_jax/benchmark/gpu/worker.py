"""Measures cells in a process of its own; a program of its own.

It reads `cells` as JSON from standard input and writes one line of JSON for the machine and one for
each cell to standard output. What libraries print goes to standard error. A card's memory, XLA's
flags and the devices in use belong to a process, hence a child.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from collab_jax.errors import UserError, needs, reason
from collab_jax.runs.environment import (
    check_devices,
    leave_out_idle_plugins,
    request_determinism,
)

__all__ = ["PARTS", "machine", "measured"]

PARTS = {
    "parity": ("parity", "parity"),
    "step": ("measure", "step_times"),
    "memory": ("measure", "memory"),
    "torch": ("torch_steps", "beside_torch"),
    "repeat": ("repeat", "short_run"),
    "compute": ("evidence", "flops"),
}
"""The module and the function that measures a part's cells."""


def machine() -> dict[str, Any]:
    """What a figure was measured with."""
    from importlib.metadata import PackageNotFoundError, version

    import jax

    from collab_jax.runs.made_with import git_revision

    device, plugin = jax.devices()[0], None
    for number in (12, 13):
        try:
            plugin = f"jax-cuda{number}-plugin {version(f'jax-cuda{number}-plugin')}"
        except PackageNotFoundError:
            continue
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "jax": jax.__version__,
        "plugin": plugin if device.platform == "gpu" else None,
        "python": ".".join(map(str, sys.version_info[:3])),
        "git_revision": git_revision(),
    }


def measured(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's `figures`, or its `error` or why it was `skipped` in a line, and its seconds."""
    began = time.monotonic()
    module, function = PARTS[cell["part"]]
    from collab_jax.benchmark.gpu.programs import Absent

    try:
        with needs("train"):
            found = importlib.import_module(f"collab_jax.benchmark.gpu.{module}")
            result = {"figures": getattr(found, function)(cell)}
    except Absent as error:
        result = {"skipped": str(error)}
    except Exception as error:
        result = {"error": str(error) if isinstance(error, UserError) else reason(error)}
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    request = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)
        if request["deterministic"]:
            request_determinism()
        leave_out_idle_plugins()
        try:
            check_devices()
        except UserError as error:
            print(json.dumps({"refused": str(error)}), file=output, flush=True)
            return
        print(json.dumps({"machine": machine()}), file=output, flush=True)
        for cell in request["cells"]:
            print(json.dumps(measured(cell)), file=output, flush=True)


if __name__ == "__main__":
    main()
