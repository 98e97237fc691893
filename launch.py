"""Trains or evaluates: `python launch.py --config configs/cifar10_vgg16.py:out+mid`."""

import sys

from collab_jax.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
