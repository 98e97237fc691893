"""What a result was made with."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from collab_jax._version import __version__
from collab_jax.progress import device_names

__all__ = ["git_revision", "versions"]


def versions() -> dict[str, str]:
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
