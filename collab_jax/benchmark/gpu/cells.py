"""What is measured: each cell one measurement, which is kept and not done again."""

from dataclasses import dataclass, field
from typing import Any

from collab_jax.benchmark.gpu.peaks import PRECISIONS
from collab_jax.benchmark.plan import METHODS
from collab_jax.benchmark.workload import Case

__all__ = ["BEST", "FULL", "TINY", "Sizes", "cells_of", "label"]

BEST = "out+mid+pull_push"
"""The combination that the study compares with a baseline of as many FLOPs."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
      models: networks.
      methods: as a config names them.
      precisions: names in `PRECISIONS`.
      batch_size: B.
      image_size: side of the images, in pixels.
      overrides: config keys of every step and run.
      chunk: steps in a scanned chunk.
      repeats: timed calls of each program.
      images: that the run in deterministic mode trains on, for one epoch.
      epochs: of the study's baseline.
      seeds: of the study.
      dry: whether this is a dry run, on whatever device.
    """

    models: tuple[str, ...] = ("vgg16", "resnet18")
    methods: tuple[str, ...] = METHODS
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    batch_size: int = 128
    image_size: int = 32
    overrides: dict[str, Any] = field(default_factory=dict)
    chunk: int = 32
    repeats: int = 20
    images: int = 128 * 70
    epochs: int = 200
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    dry: bool = False

    def case(self, model: str, method: str = "baseline", dtype: str = "float32") -> Case:
        return Case(
            model,
            method,
            batch_size=self.batch_size,
            image_size=self.image_size,
            dtype=dtype,
            overrides=self.overrides,
        )


FULL = Sizes()
TINY = Sizes(
    models=("vgg16",),
    methods=("baseline", "out+mid"),
    batch_size=8,
    image_size=8,
    overrides={"model.width": 0.02, "model.classifier_width": 8},
    chunk=2,
    repeats=2,
    images=32,
    epochs=1,
    seeds=(0,),
    dry=True,
)
"""A dry run that takes seconds on a CPU: every part but no figure of worth."""


def cells_of(part: str, sizes: Sizes) -> list[dict[str, Any]]:
    """The cells of a part but the study's runs, which are those of a folder of its own."""

    def timed(model: str, precision: str) -> dict[str, Any]:
        return {
            "case": sizes.case(model, dtype=PRECISIONS[precision][0]).to_json(),
            "methods": list(sizes.methods),
            "precision": precision,
            "chunk": sizes.chunk,
        }

    found: list[dict[str, Any]] = []
    if part == "parity":
        found = [{"case": sizes.case(m, t).to_json()} for m in sizes.models for t in sizes.methods]
    elif part == "step":
        found = [
            {**timed(model, precision), "repeats": sizes.repeats}
            for model in sizes.models
            for precision in sizes.precisions
        ]
    elif part == "memory":
        found = [timed(model, p) for model in sizes.models for p in sizes.precisions]
    elif part == "torch":
        found = [
            {
                "case": sizes.case(model).to_json(),
                "precisions": ["float32", "bfloat16"],
                "chunk": sizes.chunk,
                "repeats": sizes.repeats,
                "compile": not sizes.dry,
                "without_cuda": sizes.dry,
            }
            for model in sizes.models
        ]
    elif part == "repeat":
        config = {
            **sizes.overrides,
            "method": "out+mid+pull_push+kernel",
            "epochs": 1,
            "batch_size": sizes.batch_size,
            "learning_rate": 0.01,
        }
        run = {"config": config, "images": sizes.images, "side": sizes.image_size}
        # The second compiles anew: a program from the cache would repeat the first's choices.
        found = [{**run, "run": "first"}, {**run, "run": "second, compiled anew"}]
    elif part == "study":
        case = sizes.case("vgg16").to_json()
        found = [{"part": "compute", "case": case, "methods": ["baseline", BEST]}]
    return [{"part": part, **cell} for cell in found]


def label(cell: dict[str, Any]) -> str:
    """A cell in a few words."""
    case = cell.get("case") or {}
    words = [cell["part"], case.get("model"), cell.get("precision"), cell.get("run")]
    words += [case.get("method")] if cell["part"] == "parity" else []
    return " ".join(word for word in words if word)
