"""`python -m collab_jax`: the program of `launch.py` for an installed package."""

import sys

from collab_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
