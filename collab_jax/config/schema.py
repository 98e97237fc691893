"""Every configuration key in one table: its type, default, allowed values and meaning."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from collab_jax._version import __version__

__all__ = [
    "MODEL_STAGES",
    "OTHER_METHODS",
    "RESUME_FREE_KEYS",
    "SCHEMA",
    "SECTIONS",
    "TERMS",
    "Interval",
    "Key",
    "as_text",
    "describe",
    "did_you_mean",
]

TERMS = ("out", "mid", "pull_push", "kernel")
"""The collaborations, in canonical order."""
OTHER_METHODS = ("baseline", "tree", "multi_instance")
"""The methods that are no sum of collaborations."""
MODEL_STAGES = {"vgg16": 5, "resnet18": 4, "resnet32": 3, "resnet101": 4}
"""Stages by network: groups of convolutions between two reductions of the map's size."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """Numbers between two bounds, written as in mathematics: `[0, 1)`."""

    text: str

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = self.text[1:-1].split(",")
        return float(low), float(high)

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float):
            return False
        low, high = self.bounds
        above = value > low if self.text[0] == "(" else value >= low
        below = value < high if self.text[-1] == ")" else value <= high
        return above and below


@dataclasses.dataclass(frozen=True)
class Key:
    """One configuration key; `kind` is tuple for a tuple of whole numbers."""

    name: str
    kind: type
    default: Any
    allowed: Interval | tuple[str, ...] | None
    doc: str
    resume_free: bool = False

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if isinstance(self.allowed, tuple):
            return "one of " + ", ".join(self.allowed)
        among = f" in {self.allowed.text}" if self.allowed else ""
        return {
            bool: "true or false",
            int: "a whole number",
            float: "a finite float32 number",
            str: "text of printable characters",
            tuple: "whole numbers such as 60,120,160, each",
        }[self.kind] + among


def _key(
    name: str, default: Any, allowed: str | tuple[str, ...], doc: str, resume_free: bool = False
) -> Key:
    """A row of the table; `allowed` is an interval, a tuple of choices or "" for anything."""
    values = (Interval(allowed) if allowed else None) if isinstance(allowed, str) else allowed
    return Key(name, type(default), default, values, doc, resume_free)


_COUNT_OR_NONE = "[0, 1000000000]"
_WEIGHT = "[0, inf)"
_ABOVE_0 = "(0, inf)"

SCHEMA: dict[str, Key] = {
    key.name: key
    for key in (
        _key("version", __version__, "", "version of collab_jax that the file is for", True),
        _key("name", "", "", "recipe's name, used for the run directory; empty: the file's", True),
        _key("method", "baseline", "", "baseline, tree, multi_instance or terms joined by +"),
        _key("seed", 0, "[0, 2147483647]", "seed of every random draw"),
        _key("epochs", 200, "[1, 1000000]", "passes over the training split"),
        _key("steps", 0, _COUNT_OR_NONE, "stop after so many steps; 0: after `epochs`"),
        _key("batch_size", 128, "[1, 1000000]", "training images in a step"),
        _key("micro_batches", 1, "[1, 4096]", "equal parts of a batch computed one after another"),
        _key("eval_batch_size", 500, "[1, 65536]", "images in an evaluation step", True),
        _key("eval_every", 1, "[1, 1000000]", "epochs from one evaluation to the next"),
        _key("learning_rate", 0.1, _ABOVE_0, "learning rate before its decay"),
        _key("momentum", 0.9, "[0, 1)", "momentum of SGD; 0: none"),
        _key("nesterov", False, "", "Nesterov's form of the momentum"),
        _key("weight_decay", 5e-4, _WEIGHT, "L2 decay added to the gradient of all parameters"),
        _key("decay_epochs", (60, 120, 160), "[1, 1000000]", "epochs after which the rate decays"),
        _key("decay_factor", 0.2, "(0, 1]", "factor of the learning rate at each decay"),
        _key("warmup_epochs", 0.0, _WEIGHT, "epochs in which the learning rate rises from 0"),
        _key("top5", False, "", "the headline is top-5 error in place of top-1"),
        _key("init_from", "", "", "run directory or PyTorch file (.pt, .pth, .npz) to start from"),
        _key("continue_from", "", "", "run directory to go on from, with this config's values"),
        _key(
            "steps_per_dispatch",
            0,
            "[0, 10000]",
            "steps compiled into one call; 0: one on the CPU, a bounded chunk on accelerators",
        ),
        _key("nonfinite", "stop", ("stop", "skip"), "on a non-finite loss: stop or skip the step"),
        _key("deterministic", False, "", "set the switches that make GPU runs repeat bit for bit"),
        _key("data.name", "cifar10", "", "TFDS name, `digits`, or path of an .npz file"),
        _key("data.dir", "", "", "folder of the data; empty: ~/.cache/collab_jax", True),
        _key("data.manual_dir", "", "", "folder of archives; empty: downloads/manual in it", True),
        _key(
            "data.validation",
            0.0,
            "[0, 1000000000]",
            "part of the training split held out to validate: a fraction below 1 or a count",
        ),
        _key(
            "data.train_examples",
            0,
            _COUNT_OR_NONE,
            "size of a class-balanced random subset to train on; 0: all",
        ),
        _key("data.label_noise", 0.0, "[0, 1)", "probability that a training label is replaced"),
        _key(
            "data.label_noise_kind",
            "redrawn",
            ("redrawn", "fixed"),
            "whether labels are replaced anew in every epoch, or once",
        ),
        _key("data.crop", True, "", "random crop after padding by an eighth of the size"),
        _key("data.flip", True, "", "random horizontal flip"),
        _key("data.cutout", 0, "[0, 4096]", "side of the square cut out, in pixels; 0: none"),
        _key(
            "data.resident",
            "auto",
            ("auto", "always", "never"),
            "keep the training images on the device",
            True,
        ),
        _key("data.image_size", 0, "[0, 4096]", "size to reduce the images to; 0: their own"),
        _key("model.name", "vgg16", tuple(MODEL_STAGES), "network"),
        _key("model.width", 1.0, "(0, 64]", "factor of the number of filters"),
        _key("model.classifier_width", 4096, "[0, 65536]", "units in both hidden layers; 0: none"),
        _key("model.dropout", 0.5, "[0, 1)", "dropout rate after each hidden layer"),
        _key(
            "model.dtype",
            "float32",
            ("float32", "bfloat16"),
            "type of the convolutions' arithmetic",
        ),
        _key(
            "model.norm_groups",
            1,
            "[1, 65536]",
            "parts of a batch that batch norm takes statistics of each by itself; 1: all as one",
        ),
        _key("out.weight", 1.0, _WEIGHT, "weight of L_out (also of tree and multi_instance)"),
        _key("out.temperature", 2.0, _ABOVE_0, "temperature T of its soft part"),
        _key("out.alpha", 0.5, "[0, 1]", "share of its hard part"),
        _key("out.masks_per_layer", 2, "[1, 32]", "dropout masks K in a layer; K^2 branches"),
        _key("out.scale_by_t2", False, "", "multiply its soft part by T^2"),
        _key("out.stop_gradient", True, "", "treat its soft targets as constants"),
        _key("mid.weight", 1.0, _WEIGHT, "weight of L_mid"),
        _key("mid.temperature", 2.0, _ABOVE_0, "temperature T of both its parts"),
        _key("mid.alpha", 0.05, _WEIGHT, "weight of its hard part"),
        _key("mid.beta", 0.05, _WEIGHT, "weight of its soft part"),
        _key(
            "mid.head_width",
            64,
            "[1, 4096]",
            "filters in a local head at width 1; a narrower network's has in proportion",
        ),
        _key("mid.head_pool", 4, "[1, 64]", "side of the map that a local head pools to"),
        _key("mid.output_view", False, "", "the output logits are one more, highest, view"),
        _key("mid.scale_by_t2", False, "", "multiply its soft part by T^2"),
        _key("mid.stop_gradient", True, "", "treat its soft targets as constants"),
        _key("mid.ramp_epochs", 0.0, _WEIGHT, "epochs in which its weight rises from 0"),
        _key("pull_push.weight", 1.28, _WEIGHT, "weight of L_pull-push, a mean over B x B pairs"),
        _key(
            "pull_push.projection_width",
            32,
            "[2, 4096]",
            "filters in a projection g_i at width 1; in proportion below",
        ),
        _key("pull_push.projection_kernel", 3, "[1, 31]", "side of a projection's kernel"),
        _key(
            "pull_push.projection_pool",
            0,
            "[0, 4096]",
            "side that maps are averaged to before a projection, to save memory; 0: they are not",
        ),
        _key(
            "pull_push.representation",
            "auto",
            ("auto", "std", "flatten"),
            "vector of a map: per-channel spatial deviation, all its values, or whichever applies",
        ),
        _key(
            "pull_push.input_representation",
            "same",
            ("same", "auto", "std", "flatten"),
            "vector of an input image; same: as `representation`",
        ),
        _key(
            "pull_push.center", "features", ("features", "batch", "none"), "mean that S subtracts"
        ),
        _key("pull_push.ramp_epochs", 0.0, _WEIGHT, "epochs in which its weight rises from 0"),
        _key("kernel.weight", 0.001, _WEIGHT, "weight of L_kernel"),
        _key("kernel.stages", 2, "[1, 8]", "last stages whose 3x3 kernels it covers"),
        _key("kernel.ramp_epochs", 0.0, _WEIGHT, "epochs in which its weight rises from 0"),
        _key("multi_head.heads", 4, "[2, 64]", "heads of tree, copies of multi_instance"),
        _key("multi_head.rescale", True, "", "divide the gradient by the branches at each split"),
        _key(
            "multi_head.split_stages",
            (),
            "[0, 7]",
            "stages, counted from 0, before which tree splits in two; empty: the last ones",
        ),
        _key("checkpoint.every_epochs", 1, "[0, 1000000]", "epochs between checkpoints", True),
        _key("checkpoint.every_steps", 0, _COUNT_OR_NONE, "steps between checkpoints", True),
        _key("checkpoint.every_minutes", 0.0, _WEIGHT, "minutes between checkpoints", True),
        _key("log.progress", True, "", "show a progress bar", True),
        _key("log.tensorboard", True, "", "write TensorBoard events", True),
        _key("log.every_seconds", 1.0, _WEIGHT, "seconds between updates of the display", True),
    )
}
"""Every key by its dotted name."""
SECTIONS = tuple(dict.fromkeys(name.split(".")[0] for name in SCHEMA if "." in name))
"""The first parts of dotted names."""
RESUME_FREE_KEYS = frozenset(key.name for key in SCHEMA.values() if key.resume_free)
"""Keys that may differ when a run is resumed: cadence, logging, places on this machine, labels."""


def as_text(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return ",".join(as_text(item) for item in value) or "()"
    return value if isinstance(value, str) else repr(value).removesuffix(".0")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`; did you mean A or B?`, or nothing where no option is near."""
    options = list(options)
    # A key's last part alone is a frequent slip: `width` for `model.width`.
    near = [option for option in options if option.split(".")[-1] == word.split(".")[-1]]
    near = near if 0 < len(near) <= 3 else difflib.get_close_matches(word, options, 2, 0.6)
    near = near or [
        option
        for leaf in difflib.get_close_matches(word, [o.split(".")[-1] for o in options], 1, 0.8)
        for option in options
        if option.split(".")[-1] == leaf
    ]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


def describe() -> str:
    """Every key as a Markdown table: type, default, allowed values, meaning."""
    rows = [
        "| key | type | default | allowed | may change on resume | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for key in SCHEMA.values():
        kind = "int, int, ..." if key.kind is tuple else key.kind.__name__
        default = f"`{as_text(key.default)}`" if key.default != "" else "empty"
        default = "that in use" if key.name == "version" else default
        if isinstance(key.allowed, tuple):
            allowed = ", ".join(f"`{choice}`" for choice in key.allowed)
        else:
            allowed = f"`{key.allowed.text}`" if key.allowed else ""
        free = "yes" if key.resume_free else ""
        rows.append(f"| `{key.name}` | {kind} | {default} | {allowed} | {free} | {key.doc} |")
    return "\n".join(rows) + "\n"
