"""The losses of a recipe's first steps, one by one, by the step and the feed that a run has.

    python tools/first_steps.py cifar10_vgg16:baseline --steps 200 --out curves.jsonl \
        --set data.name=cifar10.npz --set model.width=0.5

Appends one JSON line: the recipe, what was set, the loss of the output layer (cross-entropy, or
L_out) and the training error of each step, what the classifier is like at the end, seconds. Lines
on the way, marked `"whole": false`, hold what there is so far: a run that is cut off loses nothing.
A line whose recipe, settings and steps stand in the file already is not computed again.
"""

import argparse
import ast
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402

from collab_jax import config as config_lib  # noqa: E402
from collab_jax.config import recipes  # noqa: E402
from collab_jax.data import DataInfo  # noqa: E402
from collab_jax.training.batches import Feed  # noqa: E402
from collab_jax.training.build import create_experiment, load_data  # noqa: E402
from collab_jax.training.health import Health  # noqa: E402
from collab_jax.training.placement import Placement  # noqa: E402
from collab_jax.training.state import create_train_state  # noqa: E402

__all__ = ["Steps", "configured", "every", "measured", "read"]

_NOTED_EVERY = 20


def configured(recipe: str, changes: Mapping[str, Any]) -> config_lib.Config:
    """A shipped recipe, as `NAME:METHOD`, with keys changed."""
    file, method = recipes.split_argument(recipe)
    return config_lib.replace(recipes.load(file, method), changes)


class Steps:
    """A run's first steps.

    Args:
      config: valid.

    Attributes:
      classes: m.
    """

    def __init__(self, config: config_lib.Config) -> None:
        dataset, self._placement = load_data(config), Placement()
        info = DataInfo.of(dataset)
        self.classes = info.num_classes
        per_epoch = len(dataset.train) // config.batch_size
        made = create_experiment(config, info, per_epoch)
        self._term = made.objective.terms[0].name
        self._feed = Feed(
            dataset.train,
            made.settings,
            self._placement,
            batch_size=config.batch_size,
            seed=config.seed,
        )
        self._health = Health(made.model, info, dataset.train, self._placement)
        state = create_train_state(
            made.model, made.objective, made.optimizer, info.image_shape, config.seed
        )
        self._state = self._placement.replicate(state)

    def run(self, count: int) -> Iterator[tuple[float, float]]:
        """Yields each step's loss of the output layer and its training error in %."""
        done, epoch = 0, 0
        while done < count:
            before = (0.0, 0.0)
            for _, inputs in self._feed.inputs(epoch, 0):
                self._state, report = self._feed.run(self._state, inputs)
                sums = jax.device_get(report)
                after = (float(sums[self._term]), 100.0 * float(sums["top1_wrong"]))
                yield after[0] - before[0], after[1] - before[1]
                before, done = after, done + 1
                if done == count:
                    return
            epoch += 1

    def health(self) -> dict[str, float | None]:
        """What the classifier is like; see `collab_jax.training.health.Health`."""
        return self._health({"params": self._state.params, "batch_stats": self._state.batch_stats})


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file, none if there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in map(json.loads, lines) if line["whole"]]


def measured(
    path: Path, recipe: str, changes: Mapping[str, Any], steps: int, *, shown: Mapping[str, Any]
) -> dict[str, Any]:
    """The file's line of these steps, which are run if it is not there.

    Args:
      path: of JSON lines.
      recipe: as for `configured`.
      changes: likewise.
      steps: how many.
      shown: what the line says of the changes: no path of this machine.
    """
    key = {"recipe": recipe, "set": dict(shown), "steps": steps}
    for line in read(path):
        if all(line[name] == value for name, value in key.items()):
            return line
    began = time.monotonic()
    run = Steps(configured(recipe, changes))
    losses: list[float] = []
    errors: list[float] = []

    def made(whole: bool) -> dict[str, Any]:
        return {
            **key,
            "whole": whole,
            "classes": run.classes,
            "losses": [round(loss, 4) for loss in losses],
            "errors": [round(error, 2) for error in errors],
            "seconds": round(time.monotonic() - began, 1),
            **(run.health() if whole else {}),
        }

    for loss, error in run.run(steps):
        losses.append(loss)
        errors.append(error)
        if len(losses) % _NOTED_EVERY == 0 and len(losses) < steps:
            _append(path, made(False))
    _append(path, made(True))
    return read(path)[-1]


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def every(values: list[float], count: int) -> list[float]:
    """Means over each `count` values."""
    return [
        sum(values[start : start + count]) / len(values[start : start + count])
        for start in range(0, len(values), count)
    ]


def literal(text: str) -> tuple[str, Any]:
    """KEY=VALUE as the key and a Python value, text where it is none."""
    key, _, value = text.partition("=")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def table(lines: list[dict[str, Any]], count: int) -> str:
    """Markdown: a row a line, the mean loss over each `count` steps."""
    steps = max(line["steps"] for line in lines)
    head = [str(number) for number in range(count, steps + 1, count)]
    rows = [
        "| recipe | set | "
        + " | ".join(head)
        + " | error %, last steps | logit scale | dead units |",
        "|---|---|" + "---:|" * (len(head) + 3),
    ]
    for line in lines:
        means = [f"{value:.2f}" for value in every(line["losses"], count)]
        means += [""] * (len(head) - len(means))
        dead = [line.get(f"dead_units_{name}") for name in ("fc1", "fc2")]
        rows.append(
            "| "
            + " | ".join(
                [
                    f"`{line['recipe']}`",
                    ", ".join(f"{key} {value}" for key, value in line["set"].items()),
                    *means,
                    f"{every(line['errors'], count)[-1]:.1f}",
                    f"{line['logit_scale']:.2f}",
                    ", ".join(f"{value:.0%}" for value in dead if value is not None),
                ]
            )
            + " |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="*", help="NAME:METHOD")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps of a mean in the table")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--set", action="append", type=literal, default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    changes = dict(args.set)
    shown = {
        key: Path(value).stem if key == "data.name" else value for key, value in changes.items()
    }
    for recipe in args.recipe:
        measured(args.out, recipe, changes, args.steps, shown=shown)
    print(table(read(args.out), args.every))


if __name__ == "__main__":
    main()
