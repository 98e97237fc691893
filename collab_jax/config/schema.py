"""Every configuration key: its type, default, allowed values and meaning; a run's values."""

import operator
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from collab_jax._version import __version__

__all__ = [
    "MODEL_STAGES",
    "OTHER_METHODS",
    "RESUME_FREE_KEYS",
    "SCHEMA",
    "SECTIONS",
    "TERMS",
    "Checkpoint",
    "Config",
    "Data",
    "Interval",
    "Kernel",
    "Key",
    "Log",
    "Mid",
    "Model",
    "MultiHead",
    "Optimizer",
    "Out",
    "PullPush",
]

TERMS = ("out", "mid", "pull_push", "kernel")
"""The collaborations, in canonical order."""
OTHER_METHODS = ("baseline", "tree", "multi_instance")
"""The methods that are no sum of collaborations."""
MODEL_STAGES = {"vgg16": 5, "resnet18": 4, "resnet32": 3, "resnet101": 4}
"""Stages by network: groups of convolutions between two reductions of the map's size."""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Key:
    """One configuration key; `kind` is tuple for several numbers, each of the type `item`."""

    name: str
    kind: type
    item: type | None
    default: Any
    allowed: Interval | tuple[str, ...] | None
    doc: str
    resume_free: bool

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if isinstance(self.allowed, tuple):
            return "one of " + ", ".join(self.allowed)
        among = f" in {self.allowed.text}" if self.allowed else ""
        if self.item is float:
            return (
                "parts of the run such as 0.3,0.6,0.8 or whole numbers such as 60,120,160, "
                f"each{among}"
            )
        return {
            bool: "true or false",
            int: "a whole number",
            float: "a finite float32 number",
            str: "text of printable characters",
            tuple: "whole numbers such as 60,120,160, each",
        }[self.kind] + among


def _key(default: Any, allowed: str | tuple[str, ...], doc: str, resume_free: bool = False) -> Any:
    """A row of the table; `allowed` is an interval, a tuple of choices or "" for anything."""
    values = (Interval(allowed) if allowed else None) if isinstance(allowed, str) else allowed
    row = {"allowed": values, "doc": doc, "resume_free": resume_free}
    return field(default=default, metadata=row)


_COUNT_OR_NONE = "[0, 1000000000]"
_WEIGHT = "[0, inf)"
_ABOVE_0 = "(0, inf)"
_GLOBS = "modules of your own network {}: globs over paths, such as **/Conv_*,!**/shortcut"


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images, and how they are prepared."""

    name: str = _key(
        "cifar10",
        "",
        "TFDS name, `digits`, path of an .npz file, or `folder:`, `csv:` or `hf:` and a path",
    )
    dir: str = _key("", "", "folder of the data; empty: ~/.cache/collab_jax", True)
    manual_dir: str = _key("", "", "folder of archives; empty: downloads/manual in it", True)
    test: float = _key(
        0.0, "[0, 1)", "fraction of the images to test with, where the data have no test split"
    )
    validation: float = _key(
        0.0,
        "[0, 1000000000]",
        "part of the training split held out to validate: a fraction below 1 or a count",
    )
    train_examples: int = _key(
        0, _COUNT_OR_NONE, "size of a class-balanced random subset to train on; 0: all"
    )
    label_noise: float = _key(0.0, "[0, 1)", "probability that a training label is replaced")
    label_noise_kind: Literal["redrawn", "fixed"] = _key(
        "redrawn", "", "whether labels are replaced anew in every epoch, or once"
    )
    label_smoothing: float = _key(
        0.0, "[0, 1)", "part of a training label that is spread over all classes"
    )
    mixup: float = _key(
        0.0, "[0, 100]", "mix images in pairs, and their labels, by Beta(a, a) of this a; 0: do not"
    )
    cutmix: float = _key(
        0.0,
        "[0, 100]",
        "put a box of another image into each one, its size by Beta(a, a) of this a, and mix their "
        "labels; with mixup a batch gets either by chance; 0: do not",
    )
    crop: bool = _key(True, "", "random crop after padding by an eighth of the size")
    flip: bool = _key(True, "", "random horizontal flip")
    cutout: int = _key(0, "[0, 4096]", "side of the square cut out, in pixels; 0: none")
    resident: Literal["auto", "always", "never"] = _key(
        "auto", "", "keep the training images on the device", True
    )
    image_size: int = _key(0, "[0, 4096]", "side to resize the images to; 0: their own")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network."""

    name: str = _key(
        "vgg16",
        "",
        f"network: {', '.join(MODEL_STAGES)}, or a function of your own, FILE.py:FUNCTION or "
        "package.module:FUNCTION",
    )
    layers: str = _key("", "", _GLOBS.format("whose outputs mid and pull_push take"))
    then: str = _key("", "", _GLOBS.format("that join the layer before them, such as batch norms"))
    split_at: str = _key("", "", "out runs the examples anew behind this module; empty: all of it")
    sha256: str = _key("", "", "SHA-256 of your own network's file, which the run fills in")
    width: float = _key(1.0, "(0, 64]", "factor of the number of filters")
    classifier_width: int = _key(4096, "[0, 65536]", "units in both hidden layers; 0: none")
    dropout: float = _key(0.5, "[0, 1)", "dropout rate after each hidden layer")
    dtype: Literal["float32", "bfloat16"] = _key(
        "float32", "", "type of the convolutions' arithmetic"
    )
    norm_groups: int = _key(
        1,
        "[1, 65536]",
        "parts of a batch that batch norm takes statistics of each by itself; 1: all as one",
    )
    remat: bool = _key(
        False, "", "compute norms and activations anew in the backward pass: less memory, more time"
    )


@dataclass(frozen=True, kw_only=True)
class Out:
    """L_out (Eq. 4), and the heads of tree and multi_instance."""

    weight: float = _key(1.0, _WEIGHT, "weight of L_out (also of tree and multi_instance)")
    temperature: float = _key(2.0, _ABOVE_0, "temperature T of its soft part")
    alpha: float = _key(0.5, "[0, 1]", "share of its hard part")
    masks_per_layer: int = _key(2, "[1, 32]", "dropout masks K in a layer; K^2 branches")
    scale_by_t2: bool = _key(False, "", "multiply its soft part by T^2")
    stop_gradient: bool = _key(True, "", "treat its soft targets as constants")


@dataclass(frozen=True, kw_only=True)
class Mid:
    """L_mid (Eq. 7)."""

    weight: float = _key(1.0, _WEIGHT, "weight of L_mid")
    temperature: float = _key(2.0, _ABOVE_0, "temperature T of both its parts")
    alpha: float = _key(0.05, _WEIGHT, "weight of its hard part")
    beta: float = _key(0.05, _WEIGHT, "weight of its soft part")
    head_width: int = _key(
        64,
        "[1, 4096]",
        "filters in a local head at width 1; a narrower network's has in proportion",
    )
    head_pool: int = _key(4, "[1, 64]", "side of the map that a local head pools to")
    output_view: bool = _key(False, "", "the output logits are one more, highest, view")
    scale_by_t2: bool = _key(False, "", "multiply its soft part by T^2")
    stop_gradient: bool = _key(True, "", "treat its soft targets as constants")
    ramp_epochs: float = _key(0.0, _WEIGHT, "epochs in which its weight rises from 0")


@dataclass(frozen=True, kw_only=True)
class PullPush:
    """L_pull-push (Eq. 9)."""

    weight: float = _key(1.28, _WEIGHT, "weight of L_pull-push, of each example")
    projection_width: int = _key(
        32, "[2, 4096]", "filters in a projection g_i at width 1; in proportion below"
    )
    projection_kernel: int = _key(3, "[1, 31]", "side of a projection's kernel")
    projection_pool: int = _key(
        0,
        "[0, 4096]",
        "side that maps are averaged to before a projection, to save memory; 0: they are not",
    )
    representation: Literal["auto", "std", "flatten"] = _key(
        "auto",
        "",
        "vector of a map: per-channel spatial deviation, all its values, or whichever applies",
    )
    input_representation: Literal["same", "auto", "std", "flatten"] = _key(
        "same",
        "",
        "vector of an input image; same: as `representation`",
    )
    center: Literal["features", "batch", "none"] = _key("features", "", "mean that S subtracts")
    ramp_epochs: float = _key(0.0, _WEIGHT, "epochs in which its weight rises from 0")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """L_kernel (Eq. 10)."""

    weight: float = _key(0.001, _WEIGHT, "weight of L_kernel")
    stages: int = _key(2, "[1, 8]", "last stages whose 3x3 kernels it covers")
    layers: str = _key("", "", _GLOBS.format("whose kernels it covers"))
    ramp_epochs: float = _key(0.0, _WEIGHT, "epochs in which its weight rises from 0")


@dataclass(frozen=True, kw_only=True)
class MultiHead:
    """Song and Chai's tree and multi_instance."""

    heads: int = _key(4, "[2, 64]", "heads of tree, copies of multi_instance")
    rescale: bool = _key(True, "", "divide the gradient by the branches at each split")
    split_stages: tuple[int, ...] = _key(
        (),
        "[0, 7]",
        "stages, counted from 0, before which tree splits in two; empty: the last ones",
    )


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How the parameters move."""

    name: Literal["sgd", "adamw", "lion"] = _key(
        "sgd", "", "optimizer; adamw and lion decouple the weight decay from the gradient"
    )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """When the state is saved."""

    every_epochs: int = _key(1, "[0, 1000000]", "epochs between checkpoints", True)
    every_steps: int = _key(0, _COUNT_OR_NONE, "steps between checkpoints", True)
    every_minutes: float = _key(0.0, _WEIGHT, "minutes between checkpoints", True)


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is shown and written along the way."""

    progress: bool = _key(True, "", "show a progress bar", True)
    tensorboard: bool = _key(True, "", "write TensorBoard events", True)
    every_seconds: float = _key(1.0, _WEIGHT, "seconds between updates of the display", True)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A valid configuration: every key's value, in its own type, and nothing that contradicts.

    `collab_jax.config.parse` makes one of a recipe, `from_json` of a run's file; both check it
    once. A value is read as `config.model.width` or as `config["model.width"]`.
    """

    version: str = _key(__version__, "", "version of collab_jax that the file is for", True)
    name: str = _key("", "", "recipe's name, used for the run directory; empty: the file's", True)
    method: str = _key("baseline", "", "baseline, tree, multi_instance or terms joined by +")
    seed: int = _key(0, "[0, 2147483647]", "seed of every random draw")
    epochs: int = _key(200, "[1, 1000000]", "passes over the training split")
    steps: int = _key(0, _COUNT_OR_NONE, "stop after so many steps; 0: after `epochs`")
    batch_size: int = _key(128, "[1, 1000000]", "training images in a step")
    micro_batches: int = _key(1, "[1, 4096]", "equal parts of a batch computed one after another")
    eval_batch_size: int = _key(500, "[1, 65536]", "images in an evaluation step", True)
    eval_every: int = _key(1, "[1, 1000000]", "epochs from one evaluation to the next")
    learning_rate: float = _key(0.1, _ABOVE_0, "learning rate before its decay")
    momentum: float = _key(0.9, "[0, 1)", "momentum of SGD; 0: none")
    nesterov: bool = _key(False, "", "Nesterov's form of the momentum")
    weight_decay: float = _key(5e-4, _WEIGHT, "L2 decay added to the gradient of all parameters")
    schedule: Literal["step", "cosine", "constant"] = _key(
        "step", "", "the learning rate decays in steps, along a cosine to 0 over `epochs`, or never"
    )
    decay_epochs: tuple[float, ...] = _key(
        (0.3, 0.6, 0.8),
        "(0, 1000000]",
        "when the rate decays: after parts of `epochs`, below 1, or after whole epochs",
    )
    decay_factor: float = _key(0.2, "(0, 1]", "factor of the learning rate at each decay")
    warmup_epochs: float = _key(0.0, _WEIGHT, "epochs in which the learning rate rises from 0")
    top5: bool = _key(False, "", "the headline is top-5 error in place of top-1")
    init_from: str = _key("", "", "run directory or PyTorch file (.pt, .pth, .npz) to start from")
    continue_from: str = _key("", "", "run directory to go on from, with this config's values")
    steps_per_dispatch: int = _key(
        0,
        "[0, 10000]",
        "steps compiled into one call; 0: one on the CPU, a bounded chunk on accelerators",
    )
    nonfinite: Literal["stop", "skip"] = _key(
        "stop", "", "on a non-finite loss: stop or skip the step"
    )
    deterministic: bool = _key(False, "", "set the switches that make GPU runs repeat bit for bit")
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    out: Out = field(default_factory=Out)
    mid: Mid = field(default_factory=Mid)
    pull_push: PullPush = field(default_factory=PullPush)
    kernel: Kernel = field(default_factory=Kernel)
    multi_head: MultiHead = field(default_factory=MultiHead)
    optimizer: Optimizer = field(default_factory=Optimizer)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    log: Log = field(default_factory=Log)

    def __getitem__(self, name: str) -> Any:
        return operator.attrgetter(name)(self)


def _rows(section: Any, prefix: str = "") -> Iterator[Key]:
    for row in fields(section):
        if is_dataclass(row.type):
            yield from _rows(row.type, f"{prefix}{row.name}.")
            continue
        kind: Any = typing.get_origin(row.type) or row.type
        arguments, known = typing.get_args(row.type), dict(row.metadata)
        if kind is Literal:
            kind, known["allowed"] = str, arguments
        item = arguments[0] if kind is tuple else None
        yield Key(f"{prefix}{row.name}", kind, item, row.default, **known)


SCHEMA: dict[str, Key] = {key.name: key for key in _rows(Config)}
"""Every key by its dotted name."""
SECTIONS = tuple(dict.fromkeys(name.split(".")[0] for name in SCHEMA if "." in name))
"""The first parts of dotted names."""
RESUME_FREE_KEYS = frozenset(key.name for key in SCHEMA.values() if key.resume_free)
"""Keys that may differ when a run is resumed: cadence, logging, places on this machine, labels."""
