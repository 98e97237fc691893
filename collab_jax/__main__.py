"""`python -m collab_jax`, `collab-jax` and `launch.py`: one program."""

import sys

from collab_jax.errors import UserError, needs
from collab_jax.runs.signals import stop_at_once

__all__ = ["main"]


def main() -> int:
    """The program of a process; returns its exit code: see `collab_jax.cli.main`."""
    stop_at_once()
    try:
        with needs("train"):
            from collab_jax import cli
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
