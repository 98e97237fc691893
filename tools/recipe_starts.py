"""Starts every shipped recipe at its own rate: does its loss fall below chance, and stay in bounds?

    python tools/recipe_starts.py --out results/recipe_starts --data cifar10=cifar10.npz

Each recipe runs its first steps with baseline and with all four terms; two of them also at twice
the width and with Song and Chai's tree. Images are those of `--data NAME=FILE.npz`, the embedded
digits, or made-up ones of the recipe's shape and number of classes (`made_up`). The classifier has
its full width; the convolutions have a part of it (`--width`, for images of 96 pixels half of it).

A start passes if the mean loss of the output layer over the last ten steps is below 0.95 log(m),
and none after the first ten steps is above 2 log(m). Writes OUT.jsonl, which a second run goes on
with, and the table OUT.md; exits with 1 if a start does not pass. Where one does not, it can be
asked whether it needs more steps (`--steps`), a wider network or the documented remedy, a rate that
rises over an epoch (`--warmup`, in steps: made-up sets are small, 390 is an epoch of CIFAR).
"""

import argparse
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from first_steps import configured, measured

from collab_jax.config import list_shipped
from collab_jax.training.build import load_data

ALL_TERMS = "out+mid+pull_push+kernel"
SHAPES = {
    "cifar10": (32, 32, 3, 10),
    "cifar100": (32, 32, 3, 100),
    "imagenet_resized/32x32": (32, 32, 3, 1000),
    "stl10": (96, 96, 3, 10),
    "fashion_mnist": (28, 28, 1, 10),
}
FURTHER = (
    ("cifar10_vgg16:baseline", 2),
    ("cifar10_resnet18:baseline", 2),
    ("cifar10_vgg16:tree", 1),
    ("cifar10_resnet18:tree", 1),
)


def made_up(shape: tuple[int, int, int], classes: int, images: int) -> dict[str, np.ndarray]:
    """Images with classes to learn: a coarse pattern that a tenth of them share, a fine one, noise.

    Args:
      shape: (H, W, C).
      classes: m.
      images: of the training split; the test split has as many as there are classes.

    Returns:
      `x_train`, `y_train`, `x_test`, `y_test`, as an .npz file holds them.
    """
    height, width, channels = shape
    generator = np.random.default_rng(0)

    def patterns(count: int, pixels: int) -> np.ndarray:
        small = generator.uniform(-1, 1, (count, pixels, pixels, channels))
        rows, columns = np.arange(height) * pixels // height, np.arange(width) * pixels // width
        return small[:, rows][:, :, columns].astype(np.float32)

    coarse, fine = patterns(10, 4), patterns(classes, 8)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", images), ("test", classes)):
        labels = np.arange(count) % classes
        pictures = np.empty((count, *shape), np.uint8)
        for row, label in enumerate(labels):
            noise = generator.normal(0, 30, shape)
            pixels = 128 + 60 * coarse[label % 10] + 40 * fine[label] + noise
            pictures[row] = np.clip(pixels, 0, 255)
        arrays |= {f"x_{split}": pictures, f"y_{split}": labels}
    return arrays


def passes(losses: list[float], classes: int) -> bool:
    """Whether the loss falls clearly below chance, and stays in bounds after ten steps."""
    chance = math.log(classes)
    return float(np.mean(losses[-10:])) < 0.95 * chance and max(losses[10:]) < 2 * chance


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown, a row a start."""
    rows = [
        "| recipe | data | width | rate | rises over | log m | steps | 1-10 | 11-30 | last ten | "
        "highest after ten | error %, last ten | passes |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for line in lines:
        losses, shown = line["losses"], line["set"]
        parts = (losses[:10], losses[10:30], losses[-10:])
        means = " | ".join(f"{np.mean(part):.2f}" for part in parts)
        rows.append(
            f"| `{line['recipe']}` | {shown['data']} | {shown['model.width']:g} | "
            f"{shown['learning_rate']:g} | {shown.get('warmup_steps', '')} | "
            f"{math.log(line['classes']):.2f} | {line['steps']} | {means} | "
            f"{max(losses[10:]):.2f} | {np.mean(line['errors'][-10:]):.1f} | "
            f"{'yes' if passes(losses, line['classes']) else 'NO'} |"
        )
    return "\n".join(rows)


def start(
    out: Path,
    folder: Path,
    given: dict[str, str],
    recipe: str,
    scale: float,
    steps: int,
    warmup: int = 0,
) -> dict[str, Any]:
    """The line of one recipe's first steps; the rate rises over the first `warmup`."""
    config = configured(recipe, {})
    name = config.data.name
    data, changes = name, {"model.width": config.model.width * scale}
    if name in SHAPES:
        *shape, classes = SHAPES[name]
        if shape[0] > 32:
            changes["model.width"] /= 2
        data = f"{name}, made up"
        path = folder / f"{name.replace('/', '_')}.npz"
        if name in given:
            data, path = name, Path(given[name])
        elif not path.exists():
            images = max(2000, 15 * config.batch_size, 2 * classes)
            np.savez(path, **made_up((*shape,), classes, images))
        changes["data.name"] = str(path)
    shown = {
        "data": data,
        "model.width": changes["model.width"],
        "learning_rate": config.learning_rate,
    }
    if warmup:
        per_epoch = len(load_data(configured(recipe, changes)).train) // config.batch_size
        changes |= {"warmup_epochs": warmup / per_epoch}
        shown |= {"warmup_steps": warmup}
    return measured(out, recipe, changes, steps, shown=shown)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--width", type=float, default=0.25, help="part of each recipe's width")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FILE.npz")
    parser.add_argument("--warmup", type=int, default=0, help="steps over which the rate rises")
    parser.add_argument("--only", nargs="*", default=[""], help="recipes whose name holds one")
    args = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in args.data)
    cells = [
        (f"{recipe}:{method}", 1)
        for method in ("baseline", ALL_TERMS)
        for recipe in list_shipped("recipe")
    ]
    out, lines = args.out.with_suffix(".jsonl"), []
    with tempfile.TemporaryDirectory() as folder:
        for recipe, times in (*cells, *FURTHER):
            if any(part in recipe for part in args.only):
                scale = args.width * times
                line = start(out, Path(folder), given, recipe, scale, args.steps, args.warmup)
                lines.append(line)
                args.out.with_suffix(".md").write_text(table(lines) + "\n")
                print(table([line]).splitlines()[-1], flush=True)
    return 0 if all(passes(line["losses"], line["classes"]) for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
