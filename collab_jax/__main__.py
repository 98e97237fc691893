"""`python -m collab_jax`, `collab-jax` and `launch.py`: one program."""

import gc
import sys

from collab_jax.errors import UserError, needs
from collab_jax.runs.signals import stop_at_once

__all__ = ["main"]

_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Python's own, 700, takes an eighth of the time until the first step, in which JAX's traces make
objects by the million that stay."""


def main() -> int:
    """The program of a process; returns its exit code: see `collab_jax.cli.main`."""
    stop_at_once()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        with needs("train"):
            from collab_jax import cli
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
