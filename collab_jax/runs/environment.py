"""The switches that make runs on GPUs repeat bit for bit."""

import os

from collab_jax.errors import UserError

__all__ = ["check_determinism", "request_determinism"]

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
