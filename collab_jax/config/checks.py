"""What a configuration must satisfy: the table's types and ranges, and no contradictions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from collab_jax._version import __version__
from collab_jax.config import own_model
from collab_jax.config.keys import Key
from collab_jax.config.schema import (
    MODEL_LAYERS,
    MODEL_STAGES,
    OTHER_METHODS,
    RIVALS,
    SCHEMA,
    SECTIONS,
    TERMS,
    Config,
)
from collab_jax.config.text import bad_value, did_you_mean, shown, unknown_key
from collab_jax.errors import UserError, meant
from collab_jax.files.functions import is_own

__all__ = [
    "check_against_data",
    "check_together",
    "checked_values",
    "flatten",
    "is_older_version",
    "parse_method",
    "typed",
    "without_effect",
]

_FLOAT32_SMALLEST, _FLOAT32_LARGEST = 1.1754944e-38, 3.4028234e38
_LONGEST_TEXT, _LONGEST_NAME = 4096, 100
# Of a smaller a, float32 rounds draws from Beta(a, a) to 0 and 1.
_SMALLEST_BETA = 0.01
# Terms that use another one's keys beside their own.
_SHARED_KEYS = {
    "mid.head_width": {"mid", "auxiliary", "self_distillation", "predsim"},
    "mid.head_pool": {"mid", "auxiliary", "self_distillation", "predsim"},
    "pull_push.projection_width": {"pull_push", "predsim"},
    "pull_push.projection_kernel": {"pull_push", "predsim"},
    "pull_push.projection_pool": {"pull_push", "predsim"},
}
# Beside them no term reads features inside of their layers.
_READS_WHOLE = {"predsim", "hsic"}
_COMPARES_IMAGES = ("pull_push", "predsim", "hsic", "decov")


def parse_method(text: Any) -> str:
    """The method's canonical name: terms in the order of `TERMS`, then of `RIVALS`.

    Args:
        text: `baseline`, `tree`, `multi_instance`, or terms joined by `+` in any order.

    Raises:
        UserError: an unknown or repeated term; the message names near misses.
    """
    if not isinstance(text, str):
        raise UserError(f"method {shown(text)}: expected text such as out+mid")
    known = (*TERMS, *RIVALS)
    names = [name.strip() for name in text.split("+")]
    if len(names) == 1 and names[0] in OTHER_METHODS:
        return names[0]
    for name in names:
        if name in OTHER_METHODS:
            raise UserError(f"method {shown(text)}: {name} stands alone, expected no + beside it")
        if name not in known:
            parts = re.split(r"[\s,&/]+", text.lower().replace("+", ","))
            if len(parts) > len(names) and set(parts) <= set(known):
                hint = meant(["+".join(dict.fromkeys(parts))])
            else:
                hint = did_you_mean(name.lower().replace("-", "_"), (*known, *OTHER_METHODS))
            raise UserError(
                f"method {shown(text)}: unknown {shown(name)}, expected baseline, tree, "
                f"multi_instance or any of {', '.join(known)} joined by +{hint}"
            )
        if names.count(name) > 1:
            raise UserError(f"method {shown(text)}: {name} is given twice, expected it once")
    return "+".join(term for term in known if term in names)


def typed(key: Key, value: Any) -> Any:
    """`value` in the key's own type (a whole number becomes a float where one is due).

    Raises:
        UserError: wrong type, not finite, or outside the allowed values.
    """
    if key.kind is tuple:
        if not isinstance(value, tuple | list):
            raise bad_value(key.name, value, key.expected)
        fits = _is_int if key.item is int else _is_part_or_int
        if not all(fits(item) and (not key.allowed or item in key.allowed) for item in value):
            raise bad_value(key.name, value, key.expected)
        return tuple(value)
    accepts = {
        bool: lambda: isinstance(value, bool),
        int: lambda: _is_int(value),
        float: lambda: _is_number(value),
        str: lambda: isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_TEXT,
    }
    if not accepts[key.kind]() or (key.allowed is not None and value not in key.allowed):
        raise bad_value(key.name, value, key.expected)
    return key.kind(value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """A finite number that float32 arithmetic neither overflows nor rounds to zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == 0 or _FLOAT32_SMALLEST <= abs(value) <= _FLOAT32_LARGEST


def _is_part_or_int(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and _is_number(value) and value < 1)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested sections, mappings or ConfigDicts, as one dictionary of dotted keys."""
    flat: dict[str, Any] = {}
    for name in tree:
        value = tree[name]
        if hasattr(value, "keys") and (len(value) or name in SECTIONS):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def checked_values(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Every key's value in its own type, after all checks of a whole configuration.

    Args:
        flat: values by dotted key, as `flatten` gives them.

    Raises:
        UserError: the first key at fault, its value and what was expected.
    """
    for name in flat:
        if name not in SCHEMA:
            raise unknown_key(name)
    for name in SCHEMA:
        if name not in flat:
            raise UserError(f"config.{name} is missing, expected {SCHEMA[name].expected}")
    # First, so that a newer file's new values are not called mistakes.
    _check_version(flat["version"])
    values = {name: typed(key, flat[name]) for name, key in SCHEMA.items()}
    check_together(values)
    return values


def check_together(values: Mapping[str, Any]) -> None:
    """Raises the UserError of the first value that cannot go together with another."""
    for name, expected in _contradictions(values):
        raise bad_value(name, values[name], expected)


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without trailing zeros: 0.1.0rc1 is (0, 1)."""
    match = re.match(r"\d{1,9}(\.\d{1,9})*", version, re.ASCII)
    numbers = [int(part) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _check_version(version: Any) -> None:
    if not isinstance(version, str) or not re.match(r"\d{1,9}(\.|$)", version, re.ASCII):
        raise bad_value("version", version, f"a version such as {__version__}")
    if _release(version) > _release(__version__):
        raise bad_value("version", version, f"at most {__version__}, this collab_jax's version")


def is_older_version(version: str, other: str) -> bool:
    """Whether one version comes before another."""
    return _release(version) < _release(other)


def _contradictions(c: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what was expected) of each pair of values that cannot go together."""
    # First, as others ask for the network's stages.
    yield from own_model.contradictions(c)
    name, validation, method = c["name"], c["data.validation"], parse_method(c["method"])
    if c["method"] != method:
        yield "method", f"its canonical form {method}"
    if "/" in name or "\\" in name or name in (".", "..") or len(name) > _LONGEST_NAME:
        yield "name", f"a file name of at most {_LONGEST_NAME} characters, without slashes"
    if not c["data.name"].strip():
        yield (
            "data.name",
            "a TFDS name, digits, a path to an .npz file, or folder:, csv: or hf: with one",
        )
    if validation >= 1 and validation != int(validation):
        yield "data.validation", "a fraction below 1 or a whole number of images"
    if c["init_from"] and c["continue_from"]:
        yield "continue_from", f"empty where config.init_from = {c['init_from']!r}"
    if 0 < c["data.train_examples"] < c["batch_size"]:
        yield (
            "data.train_examples",
            f"0 (all) or at least config.batch_size = {c['batch_size']}, for one full batch",
        )
    if 0 < c["data.image_size"] < c["data.cutout"]:
        yield "data.cutout", f"at most config.data.image_size = {c['data.image_size']}"
    for name in ("data.mixup", "data.cutmix"):
        if 0 < c[name] < _SMALLEST_BETA:
            yield name, f"0 or at least {_SMALLEST_BETA}"
        if c[name] and c["batch_size"] < 2:
            yield "batch_size", f"at least 2 with config.{name}, which pairs images"
    yield from _schedule_contradictions(c)
    yield from _method_contradictions(c)


def _schedule_contradictions(c: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    epochs = c["epochs"]
    decay = c["decay_epochs"]
    if decay and decay[0] < 1 <= decay[-1]:
        yield "decay_epochs", "parts of the run below 1, or whole epochs, not both"
    if any(later <= earlier for earlier, later in zip(decay, decay[1:], strict=False)):
        yield "decay_epochs", "epochs in increasing order"
    if c["warmup_epochs"] > epochs:
        yield "warmup_epochs", f"at most config.epochs = {epochs}"
    if c["nesterov"] and c["momentum"] == 0:
        yield "nesterov", "false where config.momentum = 0"
    if not any(c[f"checkpoint.every_{unit}"] for unit in ("epochs", "steps", "minutes")):
        yield "checkpoint.every_epochs", "above 0, or else every_steps or every_minutes above 0"
    for term in ("mid", "pull_push", "kernel"):
        if c[f"{term}.ramp_epochs"] > epochs:
            yield f"{term}.ramp_epochs", f"at most config.epochs = {epochs}"


def _method_contradictions(c: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    method, model = c["method"], c["model.name"]
    own = is_own(model)
    terms, stages = method.split("+"), MODEL_STAGES.get(model, 0)
    if "out" in terms and c["out.masks_per_layer"] < 2:
        yield "out.masks_per_layer", "at least 2 with method out, which compares branches"
    if "out" in terms and c["model.dropout"] == 0 and not own:
        yield (
            "model.dropout",
            "a rate above 0 with method out, whose branches differ by dropout alone",
        )
    if "mid" in terms and c["mid.alpha"] == 0 and c["mid.beta"] == 0:
        yield "mid.alpha", "above 0 where config.mid.beta = 0, else mid is no term at all"
    if "mid" in terms and c["mid.output_view"] and c["mid.beta"] == 0:
        yield "mid.output_view", "false where config.mid.beta = 0, as it is a soft target"
    parts = c["micro_batches"] * (1 if own else c["model.norm_groups"])
    if c["batch_size"] % parts:
        yield (
            "batch_size",
            f"a multiple of {parts}, config.micro_batches times config.model.norm_groups",
        )
    for term in _COMPARES_IMAGES:
        if term in terms and c["batch_size"] < 2 * c["micro_batches"]:
            yield (
                "batch_size",
                f"at least {2 * c['micro_batches']} with method {term}, which compares images "
                f"({c['micro_batches']} micro_batches)",
            )
    yield from _rival_contradictions(c, terms)
    if "kernel" in terms and c["kernel.stages"] > stages and not own:
        yield "kernel.stages", f"at most {stages}, the stages of {model}"
    splits, heads = c["multi_head.split_stages"], c["multi_head.heads"]
    if method == "multi_instance" and splits:
        yield "multi_head.split_stages", "() with multi_instance, which shares no stage"
    if method == "tree":
        levels = int(math.log2(heads))
        if heads != 2**levels or levels > stages:
            yield "multi_head.heads", f"a power of 2, at most {2**stages}, with tree on {model}"
        if any(later <= earlier for earlier, later in zip(splits, splits[1:], strict=False)):
            yield "multi_head.split_stages", "stages in increasing order"
        if splits and (len(splits) != levels or splits[-1] >= stages):
            yield (
                "multi_head.split_stages",
                f"() or {levels} stages below {stages}, for {heads} heads on {model}",
            )


def _rival_contradictions(c: Mapping[str, Any], terms: list[str]) -> Iterator[tuple[str, str]]:
    model, own = c["model.name"], is_own(c["model.name"])
    drops = any(c[f"model.{name}"] for name in ("dropout", "spatial_dropout", "drop_block"))
    if "r_drop" in terms and not own and not drops:
        yield "model.dropout", "a rate above 0 with method r_drop, whose passes differ by it alone"
    for term in {"auxiliary", "self_distillation"} & set(terms):
        numbers = c[f"{term}.layers"]
        if any(later <= earlier for earlier, later in zip(numbers, numbers[1:], strict=False)):
            yield f"{term}.layers", "layers in increasing order"
        if numbers and not own and numbers[-1] >= MODEL_LAYERS.get(model, 0):
            yield f"{term}.layers", f"numbers below {MODEL_LAYERS[model]}, the layers of {model}"
    if "predsim" in terms and c["predsim.local_only"]:
        for term in ("auxiliary", "self_distillation", "decov"):
            if term in terms:
                yield "predsim.local_only", f"false with method {term}, which moves all layers"
        if model.startswith("resnet"):
            yield (
                "predsim.local_only",
                f"false with {model}, whose shortcuts would learn from nothing",
            )


def without_effect(config: Config, names: Iterable[str]) -> dict[str, str]:
    """Those of `names` that the configuration makes no use of, each with what it is idle with."""
    method, optimizer, schedule = config.method, config.optimizer.name, config.schedule
    used = set(method.split("+"))
    if method in ("tree", "multi_instance"):
        used |= {"out", "multi_head"}
    idle = {*TERMS, *RIVALS, "multi_head"} - used
    reasons = own_model.without_effect(config)
    if optimizer != "sgd":
        reasons |= dict.fromkeys(("momentum", "nesterov"), f"optimizer {optimizer}")
    if schedule != "step":
        reasons |= dict.fromkeys(("decay_epochs", "decay_factor"), f"schedule {schedule}")
    if not used & {"mid", "pull_push"} or used & _READS_WHOLE:
        reasons["model.remat_heads"] = f"method {method}"
    if config.model.drop_block == 0:
        reasons["model.drop_block_size"] = "model.drop_block 0"
    for name in SCHEMA:
        single_branch = name == "out.masks_per_layer" and "out" not in method.split("+")
        shared = used & _SHARED_KEYS.get(name, set())
        if (name.split(".")[0] in idle and not shared) or single_branch:
            reasons[name] = f"method {method}"
    return {name: reasons[name] for name in names if name in reasons}


def check_against_data(
    config: Config, num_train: int, num_classes: int, image_shape: tuple[int, ...]
) -> None:
    """Check what only the data can tell.

    Args:
        config: a validated configuration.
        num_train: images left to train on.
        num_classes: classes of the data set.
        image_shape: (height, width, channels) of an image.

    Raises:
        UserError: the key at fault, its value and what the data allow.
    """
    data = config.data.name
    if config.batch_size > num_train:
        expected = f"at most {num_train}, the training images of {data}"
        raise bad_value("batch_size", config.batch_size, expected)
    if config.top5 and num_classes <= 5:
        raise bad_value("top5", True, f"false for the {num_classes} classes of {data}")
    height, width, channels = image_shape
    if config.data.cutout > min(height, width):
        expected = f"at most {min(height, width)}, the smaller side of an image of {data}"
        raise bad_value("data.cutout", config.data.cutout, expected)
    if "pull_push" in config.method.split("+") and (channels == 1 or height * width == 1):
        # One deviation alone is zero once it is centred: every similarity would be degenerate.
        for key in ("pull_push.representation", "pull_push.input_representation"):
            if config[key] == "std":
                shape = f"{height} x {width} x {channels}"
                raise bad_value(key, "std", f"auto or flatten for the {shape} images of {data}")
