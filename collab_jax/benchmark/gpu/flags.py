"""The flags of `gpu`, read before JAX is imported."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collab_jax.benchmark.gpu.peaks import PRECISIONS

__all__ = ["PARTS", "add_arguments"]

PARTS = ("parity", "step", "memory", "torch", "repeat", "study")
"""The parts in the order in which they are measured."""


def add_arguments(parser: argparse.ArgumentParser, models: Sequence[str], method: Any) -> None:
    """The flags; `method` reads a method's name."""
    parser.add_argument("out", type=Path, metavar="OUT", help="its folder, gone on with if there")
    parser.add_argument("--data", type=Path, metavar="FILE", help=".npz of the study's images")
    parser.add_argument("--minutes", type=float, help="end after so many; the study takes the rest")
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--tiny", action="store_true", help="a dry run, no GPU needed")
    parser.add_argument("--models", nargs="+", choices=models)
    parser.add_argument("--methods", nargs="+", type=method)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS)
    parser.add_argument("--epochs", type=int, help="of the study's baseline (200)")
