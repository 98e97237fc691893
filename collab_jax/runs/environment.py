"""What the environment decides of JAX before a run: determinism, devices, switches."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from collab_jax.errors import UserError, reason

__all__ = [
    "check_determinism",
    "check_devices",
    "check_switches",
    "leave_out_idle_plugins",
    "request_determinism",
    "settled",
]

_DRIVER = "libcuda.so.1"
_CUDA_VERSIONS = (12, 13)
_GUARDS = ("", "_HOST_TO_DEVICE", "_DEVICE_TO_DEVICE", "_DEVICE_TO_HOST")
_REFUSED = {
    "JAX_DISABLE_JIT": ("1", "y", "yes", "t", "true", "on"),
    **{f"JAX_TRANSFER_GUARD{guard}": ("disallow", "disallow_explicit") for guard in _GUARDS},
}

# Reductions and scatters without atomics, one fixed algorithm for each convolution. On a CPU,
# programs repeat without them.
_FLAGS = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_exclude_nondeterministic_ops=true")


def request_determinism() -> None:
    """Adds the flags to XLA_FLAGS; JAX reads them when it starts, so call this before."""
    present = os.environ.get("XLA_FLAGS", "").split()
    missing = [flag for flag in _FLAGS if flag not in present]
    os.environ["XLA_FLAGS"] = " ".join([*present, *missing])


def check_determinism(platform: str) -> None:
    """Refuses to train without the flags where they are needed.

    Args:
      platform: JAX's name of the devices in use.

    Raises:
      UserError: on a GPU, if JAX started without the flags.
    """
    missing = set(_FLAGS) - set(os.environ.get("XLA_FLAGS", "").split())
    if platform in ("gpu", "cuda", "rocm") and missing:
        raise UserError(
            f"config.deterministic = true: expected XLA_FLAGS to hold {' '.join(_FLAGS)} before "
            "JAX starts, as the command line sets it"
        )


def check_switches() -> None:
    """Refuses JAX's switches for debugging under which no run can be trained.

    Raises:
      UserError: if the environment sets one.
    """
    for name, values in _REFUSED.items():
        if (value := os.environ.get(name, "")).lower() in values:
            raise UserError(
                f"{name}={value}: expected it unset; programs are compiled, and images and "
                "metrics go to and from the device at every step"
            )


@contextmanager
def settled() -> Iterator[None]:
    """Sets JAX's switches that decide what a seed draws and how numbers are rounded.

    To types of 32 bits, random bits that do not depend on how arrays are split, and promotion of
    types, which optax's schedules rely on.
    """
    import jax

    with (
        jax.enable_x64(False),
        jax.threefry_partitionable(True),
        jax.numpy_dtype_promotion("standard"),
    ):
        yield


def leave_out_idle_plugins() -> None:
    """Keeps JAX from loading its CUDA plugins where there is no NVIDIA driver; call it before.

    Without one they can do nothing but print a line each as they are loaded, and a traceback.
    """
    if "jax" in sys.modules or sys.platform != "linux" or _has_driver():
        return
    modules: Any = sys.modules
    for number in _CUDA_VERSIONS:
        plugin: Any = ModuleType(f"jax_plugins.xla_cuda{number}")
        plugin.initialize = lambda: None
        modules.setdefault(plugin.__name__, plugin)
        modules.setdefault(f"jax_cuda{number}_plugin", None)


def _has_driver() -> bool:
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True


def check_devices() -> None:
    """Starts JAX's devices.

    Raises:
      UserError: if JAX_PLATFORMS asks for some that are not there.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        said = f" ({reason(error)})" if str(error) else ""
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX_PLATFORMS={asked}: JAX finds no such device{said}; expected cpu, or for an "
            "NVIDIA GPU its driver and the extra cuda12: pip install '.[cuda12]'"
        ) from error
