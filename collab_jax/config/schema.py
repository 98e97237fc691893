"""Every configuration key: its type, default, allowed values and meaning; a run's values."""

import operator
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from collab_jax._version import __version__
from collab_jax.config.keys import ABOVE_0, WEIGHT, Key, key
from collab_jax.config.rivals import (
    HSIC,
    Auxiliary,
    DeCov,
    PredSim,
    RDrop,
    SelfDistillation,
)

__all__ = [
    "MODEL_LAYERS",
    "MODEL_STAGES",
    "OTHER_METHODS",
    "RESUME_FREE_KEYS",
    "RIVALS",
    "SCHEMA",
    "SECTIONS",
    "TERMS",
    "Checkpoint",
    "Config",
    "Data",
    "Kernel",
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
RIVALS = ("auxiliary", "self_distillation", "predsim", "r_drop", "hsic", "decov")
"""Their neighbours, likewise; a method joins either kind by +."""
OTHER_METHODS = ("baseline", "tree", "multi_instance")
"""The methods that are no sum of terms."""
MODEL_STAGES = {"vgg16": 5, "resnet18": 4, "resnet32": 3, "resnet101": 4}
"""Stages by network: groups of convolutions between two reductions of the map's size."""
MODEL_LAYERS = {"vgg16": 13, "resnet18": 17, "resnet32": 31, "resnet101": 100}
"""Layers by network."""


_COUNT_OR_NONE = "[0, 1000000000]"
_GLOBS = "modules of your own network {}: globs over paths, such as **/Conv_*,!**/shortcut"


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which images, and how they are prepared."""

    name: str = key(
        "cifar10",
        "",
        "TFDS name, `digits`, path of an .npz file, or `folder:`, `csv:` or `hf:` and a path",
    )
    dir: str = key("", "", "folder of the data; empty: ~/.cache/collab_jax", True)
    manual_dir: str = key("", "", "folder of archives; empty: downloads/manual in it", True)
    test: float = key(
        0.0, "[0, 1)", "fraction of the images to test with, where the data have no test split"
    )
    validation: float = key(
        0.0,
        "[0, 1000000000]",
        "part of the training split held out to validate: a fraction below 1 or a count",
    )
    train_examples: int = key(
        0, _COUNT_OR_NONE, "size of a class-balanced random subset to train on; 0: all"
    )
    label_noise: float = key(0.0, "[0, 1)", "probability that a training label is replaced")
    label_noise_kind: Literal["redrawn", "fixed"] = key(
        "redrawn", "", "whether labels are replaced anew in every epoch, or once"
    )
    label_smoothing: float = key(
        0.0, "[0, 1)", "part of a training label that is spread over all classes"
    )
    mixup: float = key(
        0.0, "[0, 100]", "mix images in pairs, and their labels, by Beta(a, a) of this a; 0: do not"
    )
    cutmix: float = key(
        0.0,
        "[0, 100]",
        "put a box of another image into each one, its size by Beta(a, a) of this a, and mix their "
        "labels; with mixup a batch gets either by chance; 0: do not",
    )
    crop: bool = key(True, "", "random crop after padding by an eighth of the size")
    flip: bool = key(True, "", "random horizontal flip")
    cutout: int = key(0, "[0, 4096]", "side of the square cut out, in pixels; 0: none")
    resident: Literal["auto", "always", "never"] = key(
        "auto", "", "keep the training images on the device", True
    )
    image_size: int = key(0, "[0, 4096]", "side to resize the images to; 0: their own")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network."""

    name: str = key(
        "vgg16",
        "",
        f"network: {', '.join(MODEL_STAGES)}, or a function of your own, FILE.py:FUNCTION or "
        "package.module:FUNCTION",
    )
    layers: str = key("", "", _GLOBS.format("whose outputs the terms take"))
    then: str = key("", "", _GLOBS.format("that join the layer before them, such as batch norms"))
    split_at: str = key(
        "", "", "out and r_drop run the examples anew behind this module; empty: all of it"
    )
    sha256: str = key("", "", "SHA-256 of your own network's file, which the run fills in")
    width: float = key(1.0, "(0, 64]", "factor of the number of filters")
    classifier_width: int = key(4096, "[0, 65536]", "units in both hidden layers; 0: none")
    dropout: float = key(0.5, "[0, 1)", "dropout rate after each hidden layer")
    spatial_dropout: float = key(
        0.0, "[0, 1)", "rate at which whole channels drop behind the layers of the last two stages"
    )
    drop_block: float = key(
        0.0, "[0, 1)", "part of the pixels that DropBlock drops behind those layers, in squares"
    )
    drop_block_size: int = key(
        7, "[1, 4096]", "side of its squares, in pixels; a smaller map drops channel by channel"
    )
    dtype: Literal["float32", "bfloat16"] = key(
        "float32", "", "type of the convolutions' arithmetic"
    )
    norm_groups: int = key(
        1,
        "[1, 65536]",
        "parts of a batch that batch norm takes statistics of each by itself; 1: all as one",
    )
    remat: bool = key(
        False,
        "",
        "compute norms, activations, heads and projections anew in the backward pass: less memory, "
        "more time",
    )
    remat_heads: bool = key(
        False,
        "",
        "of these, compute heads and projections alone anew; without effect where there are none",
    )


@dataclass(frozen=True, kw_only=True)
class Out:
    """L_out (Eq. 4), and the heads of tree and multi_instance."""

    weight: float = key(1.0, WEIGHT, "weight of L_out (also of tree and multi_instance)")
    temperature: float = key(2.0, ABOVE_0, "temperature T of its soft part")
    alpha: float = key(0.5, "[0, 1]", "share of its hard part")
    masks_per_layer: int = key(2, "[1, 32]", "dropout masks K in a layer; K^2 branches")
    scale_by_t2: bool = key(False, "", "multiply its soft part by T^2")
    stop_gradient: bool = key(True, "", "treat its soft targets as constants")


@dataclass(frozen=True, kw_only=True)
class Mid:
    """L_mid (Eq. 7)."""

    weight: float = key(1.0, WEIGHT, "weight of L_mid")
    temperature: float = key(2.0, ABOVE_0, "temperature T of both its parts")
    alpha: float = key(0.05, WEIGHT, "weight of its hard part")
    beta: float = key(0.05, WEIGHT, "weight of its soft part")
    head_width: int = key(
        64,
        "[1, 4096]",
        "filters in a local head at width 1, in proportion below; also for auxiliary, predsim and "
        "self_distillation",
    )
    head_pool: int = key(4, "[1, 64]", "side of the map that a local head pools to")
    output_view: bool = key(False, "", "the output logits are one more, highest, view")
    scale_by_t2: bool = key(False, "", "multiply its soft part by T^2")
    stop_gradient: bool = key(True, "", "treat its soft targets as constants")
    ramp_epochs: float = key(0.0, WEIGHT, "epochs in which its weight rises from 0")


@dataclass(frozen=True, kw_only=True)
class PullPush:
    """L_pull-push (Eq. 9)."""

    weight: float = key(1.28, WEIGHT, "weight of L_pull-push, of each example")
    projection_width: int = key(
        32, "[2, 4096]", "filters in a projection g_i at width 1; in proportion below"
    )
    projection_kernel: int = key(3, "[1, 31]", "side of a projection's kernel")
    projection_pool: int = key(
        0,
        "[0, 4096]",
        "side that maps are averaged to before a projection, to save memory; 0: they are not",
    )
    representation: Literal["auto", "std", "flatten"] = key(
        "auto",
        "",
        "vector of a map: per-channel spatial deviation, all its values, or whichever applies",
    )
    input_representation: Literal["same", "auto", "std", "flatten"] = key(
        "same",
        "",
        "vector of an input image; same: as `representation`",
    )
    center: Literal["features", "batch", "none"] = key("features", "", "mean that S subtracts")
    ramp_epochs: float = key(0.0, WEIGHT, "epochs in which its weight rises from 0")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """L_kernel (Eq. 10)."""

    weight: float = key(0.001, WEIGHT, "weight of L_kernel")
    stages: int = key(2, "[1, 8]", "last stages whose 3x3 kernels it covers")
    layers: str = key("", "", _GLOBS.format("whose kernels it covers"))
    ramp_epochs: float = key(0.0, WEIGHT, "epochs in which its weight rises from 0")


@dataclass(frozen=True, kw_only=True)
class MultiHead:
    """Song and Chai's tree and multi_instance."""

    heads: int = key(4, "[2, 64]", "heads of tree, copies of multi_instance")
    rescale: bool = key(True, "", "divide the gradient by the branches at each split")
    split_stages: tuple[int, ...] = key(
        (),
        "[0, 7]",
        "stages, counted from 0, before which tree splits in two; empty: the last ones",
    )


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How the parameters move."""

    name: Literal["sgd", "adamw", "lion"] = key(
        "sgd", "", "optimizer; adamw and lion decouple the weight decay from the gradient"
    )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """When the state is saved."""

    every_epochs: int = key(1, "[0, 1000000]", "epochs between checkpoints", True)
    every_steps: int = key(0, _COUNT_OR_NONE, "steps between checkpoints", True)
    every_minutes: float = key(0.0, WEIGHT, "minutes between checkpoints", True)


@dataclass(frozen=True, kw_only=True)
class Log:
    """What is shown and written along the way."""

    progress: bool = key(True, "", "show a progress bar", True)
    tensorboard: bool = key(True, "", "write TensorBoard events", True)
    every_seconds: float = key(1.0, WEIGHT, "seconds between updates of the display", True)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A valid configuration: every key's value, in its own type, and nothing that contradicts.

    `collab_jax.config.parse` makes one of a recipe, `from_json` of a run's file; both check it
    once. A value is read as `config.model.width` or as `config["model.width"]`.
    """

    version: str = key(__version__, "", "version of collab_jax that the file is for", True)
    name: str = key("", "", "recipe's name, used for the run directory; empty: the file's", True)
    method: str = key("baseline", "", "baseline, tree, multi_instance or terms joined by +")
    seed: int = key(0, "[0, 2147483647]", "seed of every random draw")
    epochs: int = key(200, "[1, 1000000]", "passes over the training split")
    steps: int = key(0, _COUNT_OR_NONE, "stop after so many steps; 0: after `epochs`")
    batch_size: int = key(128, "[1, 1000000]", "training images in a step")
    micro_batches: int = key(1, "[1, 4096]", "equal parts of a batch computed one after another")
    eval_batch_size: int = key(500, "[1, 65536]", "images in an evaluation step", True)
    eval_every: int = key(1, "[1, 1000000]", "epochs from one evaluation to the next")
    learning_rate: float = key(0.1, ABOVE_0, "learning rate before its decay")
    momentum: float = key(0.9, "[0, 1)", "momentum of SGD; 0: none")
    nesterov: bool = key(False, "", "Nesterov's form of the momentum")
    weight_decay: float = key(5e-4, WEIGHT, "L2 decay added to the gradient of all parameters")
    schedule: Literal["step", "cosine", "constant"] = key(
        "step", "", "the learning rate decays in steps, along a cosine to 0 over `epochs`, or never"
    )
    decay_epochs: tuple[float, ...] = key(
        (0.3, 0.6, 0.8),
        "(0, 1000000]",
        "when the rate decays: after parts of `epochs`, below 1, or after whole epochs",
    )
    decay_factor: float = key(0.2, "(0, 1]", "factor of the learning rate at each decay")
    warmup_epochs: float = key(0.0, WEIGHT, "epochs in which the learning rate rises from 0")
    top5: bool = key(False, "", "the headline is top-5 error in place of top-1")
    init_from: str = key("", "", "run directory or PyTorch file (.pt, .pth, .npz) to start from")
    continue_from: str = key("", "", "run directory to go on from, with this config's values")
    steps_per_dispatch: int = key(
        0,
        "[0, 10000]",
        "steps compiled into one call; 0: one on the CPU, a bounded chunk on accelerators",
    )
    nonfinite: Literal["stop", "skip"] = key(
        "stop", "", "on a non-finite loss: stop or skip the step"
    )
    deterministic: bool = key(False, "", "set the switches that make GPU runs repeat bit for bit")
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    out: Out = field(default_factory=Out)
    mid: Mid = field(default_factory=Mid)
    pull_push: PullPush = field(default_factory=PullPush)
    kernel: Kernel = field(default_factory=Kernel)
    multi_head: MultiHead = field(default_factory=MultiHead)
    auxiliary: Auxiliary = field(default_factory=Auxiliary)
    self_distillation: SelfDistillation = field(default_factory=SelfDistillation)
    predsim: PredSim = field(default_factory=PredSim)
    r_drop: RDrop = field(default_factory=RDrop)
    hsic: HSIC = field(default_factory=HSIC)
    decov: DeCov = field(default_factory=DeCov)
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
