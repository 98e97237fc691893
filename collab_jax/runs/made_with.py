"""What decides a run's last bits beside its config and data: programs, devices, processor."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from collab_jax._version import __version__
from collab_jax.runs.display import device_names

__all__ = ["git_revision", "made_with"]

_CPUS = Path("/proc/cpuinfo")


def made_with() -> dict[str, Any]:
    """What a run that trains now is made with, as its `result.json` says it."""
    return {
        "versions": _versions(),
        "git_revision": git_revision(),
        "processor": _processor(),
        "threads": _threads(),
    }


def _processor() -> str:
    """The processor's name, or as much of it as the system tells."""
    lines = _CPUS.read_text(errors="replace").splitlines() if _CPUS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), "") or platform.processor() or platform.machine()


def _threads() -> int:
    """CPU threads of a program, as XLA counts: NPROC, or as many as the process may run on."""
    if (given := os.environ.get("NPROC", "")).isdecimal() and int(given):
        return int(given)
    mine = getattr(os, "sched_getaffinity", None)
    return len(mine(0)) if mine else os.cpu_count() or 1


def _versions() -> dict[str, str]:
    """Versions of the packages that determine a run's numbers, and its devices."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "collab_jax": __version__,
        "python": platform.python_version(),
        "device": device_names(),
        **{name: version(name) for name in packages},
    }


def git_revision() -> str | None:
    """The commit of the source tree, marked where it was changed; None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
