"""The train step of every method, compiled for GPUs: operations and planned memory."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from collab_jax.benchmark.gpus import GPUS
from collab_jax.benchmark.workload import Case
from collab_jax.config import RIVALS
from collab_jax.errors import RunError, UserError

__all__ = [
    "METHODS",
    "NOTE",
    "PAPER_CASE",
    "check_compiler",
    "dropping_cases",
    "economical_cases",
    "plan",
    "plan_all",
    "resnet101_cases",
]

NOTE = "planned by XLA for the GPU, not run on one"
METHODS = (
    "baseline",
    "out",
    "mid",
    "pull_push",
    "kernel",
    "out+mid+pull_push+kernel",
    "tree",
    "multi_instance",
    *RIVALS,
)
"""The paper's methods, all four terms, and what one would pick instead."""
PAPER_CASE = {"baseline": 8.77, "tree": 13.16, "out": 8.78}
"""GB of training memory that the paper measures for ResNet-101, 64 x 3 x 64 x 64."""


def resnet101_cases() -> list[Case]:
    """The paper's memory comparison: one path, a tree of four heads, four dropout predictions."""
    case = Case("resnet101", batch_size=64, image_size=64)
    return [replace(case, method=method) for method in PAPER_CASE]


def economical_cases(case: Case) -> list[Case]:
    """Pull-push on averaged maps, alone and with the other terms."""
    overrides = {**case.overrides, "pull_push.projection_pool": 8}
    return [replace(case, method=name, overrides=overrides) for name in ("pull_push", METHODS[5])]


def dropping_cases(case: Case) -> list[Case]:
    """The baseline with channels, and with blocks, dropped behind its last layers."""
    return [
        replace(case, method="baseline", overrides={**case.overrides, key: 0.1})
        for key in ("model.spatial_dropout", "model.drop_block")
    ]


def check_compiler() -> None:
    """Raises a UserError that names the extra where XLA's compiler for CUDA is missing."""
    for module in ("jax_plugins.xla_cuda12", "nvidia.cuda_nvcc"):
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise UserError(
                f"plan: {module} is not installed; expected the extra `plan`: "
                "pip install 'collab-jax[plan]'"
            )


def plan(case: Case, gpu: str, devices: int = 1, dump: Path | None = None) -> dict[str, Any]:
    """Compiles a case for a GPU in a child process.

    Args:
      case: what to compile.
      gpu: a name in `gpus.GPUS`.
      devices: how many of them the batch is split over.
      dump: an empty folder for XLA's texts of the program and its memory; None for none.

    Returns:
      The case, the GPU, and the figures of `compiling.compile_for`.

    Raises:
      UserError: if the compiler is missing.
      RunError: if the child fails.
    """
    check_compiler()
    done = subprocess.run(
        [sys.executable, "-m", "collab_jax.benchmark.compiling"],
        input=json.dumps({"case": case.to_json(), "gpu": gpu, "devices": devices}),
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *_dump_flags(dump)]),
        },
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise RunError(
            f"plan: compiling {case.model}, {case.method}, for {GPUS[gpu].name} failed: "
            f"{lines[-1] if lines else f'exit code {done.returncode}'}"
        )
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    return {**case.to_json(), "gpu": gpu, **figures}


def _dump_flags(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    return [
        f"--xla_dump_to={folder}",
        "--xla_dump_hlo_as_text",
        "--xla_dump_hlo_module_re=.*train_step.*",
    ]


def plan_all(
    cases: Sequence[Case], gpus: Sequence[str], path: Path, devices: int = 1
) -> list[dict[str, Any]]:
    """Plans every case for every GPU, and writes the figures to `path` after each.

    What the file holds already is not compiled again but told, so that a plan can be gone on with.
    """
    rows: list[dict[str, Any]] = []
    if path.is_file():
        rows = json.loads(path.read_text())["rows"]
    for gpu in gpus:
        for case in cases:
            wanted = {**case.to_json(), "gpu": gpu, "devices": devices}
            kept = [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]
            if kept:
                print(f"{_line(kept[0])}; from {path}, not planned again", flush=True)
                continue
            rows.append(plan(case, gpu, devices))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"note": NOTE, "rows": rows}, indent=1) + "\n")
            print(_line(rows[-1]), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['gpu']} {row['model']} {row['dtype']} {row['method']}: {row['convolutions']} "
        f"convolutions, {row['peak_bytes'] / 2**20:.0f} MiB"
    )
