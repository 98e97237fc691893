"""A run's configuration: what a recipe gives, overrides, and its file in the run directory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from collab_jax._version import __version__
from collab_jax.config.checks import (
    check_together,
    checked_values,
    flatten,
    parse_method,
    typed,
)
from collab_jax.config.keys import Key
from collab_jax.config.own_model import check_file
from collab_jax.config.schema import OTHER_METHODS, RESUME_FREE_KEYS, SCHEMA, Config
from collab_jax.config.text import as_text, bad_value, shown, unknown_key
from collab_jax.config.versions import translated
from collab_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

__all__ = [
    "check_key",
    "conflict_text",
    "identity_hash",
    "decay_points",
    "differences",
    "from_json",
    "override",
    "parse",
    "recipe",
    "replace",
    "resume_conflicts",
    "short_hash",
    "terms",
    "to_json",
    "with_file",
]

# The run directory's path already tells them, or they do not change the result.
# A changed file must meet the run that it belongs to, and be refused.
_NOT_HASHED = RESUME_FREE_KEYS | {"method", "seed", "model.sha256"}


def recipe(method: str = "baseline", overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The defaults with a method and a recipe's own values, as a recipe's `get_config` returns it.

    Args:
        method: as `parse_method` takes it.
        overrides: values by key, nested by section or dotted:
            `{"epochs": 40, "data": {"name": "cifar100"}, "model.name": "resnet18"}`.

    Returns:
        A locked ConfigDict of every key.

    Raises:
        UserError: an unknown key or method, a wrong type or a value out of range.
    """
    from ml_collections import ConfigDict

    values = {name: key.default for name, key in SCHEMA.items()}
    config = ConfigDict(_nested(values | _typed({"method": method, **flatten(overrides or {})})))
    return config.lock()


def parse(config: ConfigDict | Mapping[str, Any]) -> Config:
    """The typed configuration of what a recipe gives, after all checks.

    Raises:
        UserError: the first key at fault, its value and what was expected.
    """
    return _build(checked_values(flatten(config)))


def replace(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values, by dotted key.

    Raises:
        UserError: an unknown key, a value that does not fit it, or a contradiction.
    """
    if not values:
        return config
    changed = {name: config[name] for name in SCHEMA} | _typed(values)
    check_together(changed)
    return _build(changed)


def with_file(config: Config) -> Config:
    """The configuration with the SHA-256 of the file that its network is in, if it is in one.

    Raises:
        UserError: no such file, or not the one that the configuration names.
    """
    digest = check_file(config)
    return replace(config, {"model.sha256": digest}) if digest else config


def override(config: Config, texts: Mapping[str, str]) -> Config:
    """The configuration with other values, read from the command line's text.

    Args:
        config: a configuration.
        texts: `3`, `0.1`, `true`, `60,120,160` or any text, by dotted key such as `model.width`.

    Raises:
        UserError: an unknown key (the nearest is named), a value that does not fit it, or a
            contradiction.
    """
    for key in texts:
        check_key(key)
    return replace(config, {key: _read(SCHEMA[key], text) for key, text in texts.items()})


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        check_key(name)
        found[name] = typed(SCHEMA[name], value)
        if name == "method":
            found[name] = parse_method(value)
    return found


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key as a tree of sections, in the table's order."""
    tree: dict[str, Any] = {}
    for name in SCHEMA:
        section, _, leaf = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[leaf] = values[name]
    return tree


def _build(values: Mapping[str, Any]) -> Config:
    tree = _nested(values)
    sections: Any = {row.name: row.type for row in fields(Config)}
    return Config(
        **{
            name: sections[name](**value) if isinstance(value, dict) else value
            for name, value in tree.items()
        }
    )


def terms(method: str) -> tuple[str, ...]:
    """The terms that a method turns on; none for baseline, tree and multi_instance."""
    canonical = parse_method(method)
    return () if canonical in OTHER_METHODS else tuple(canonical.split("+"))


def check_key(key: str) -> None:
    """Raises the UserError of an unknown key, naming the nearest."""
    if key not in SCHEMA:
        raise unknown_key(key)


def _read(key: Key, text: str) -> Any:
    try:
        if key.kind is bool:
            return {"true": True, "false": False}[text.strip().lower()]
        if key.kind is int:
            return _parse_int(text)
        if key.kind is float:
            return _parse_float(text)
        if key.kind is tuple:
            return _parse_numbers(text, key.item)
    except (ValueError, KeyError):
        raise bad_value(key.name, text, key.expected) from None
    return text


def _parse_numbers(text: str, item: type | None) -> tuple[float, ...]:
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("()", "[]"):
        inner = inner[1:-1].strip()
    parts = inner.removesuffix(",").split(",")
    if parts == [""]:
        return ()
    return tuple(
        _parse_float(part) if item is float and "." in part else _parse_int(part) for part in parts
    )


def _parse_float(text: str) -> float:
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return float(text)


def _parse_int(text: str) -> int:
    # int() itself also takes 1_000, other alphabets' digits, and refuses long ones with advice.
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", text):
        raise ValueError(text)
    return int(text)


def to_json(config: Config) -> str:
    """The configuration as the text of a run's `config.json`, in the table's order."""
    values = {name: config[name] for name in SCHEMA} | {"version": __version__}
    return json.dumps(_nested(values), indent=2, allow_nan=False) + "\n"


def from_json(text: str, source: str = "config.json") -> Config:
    """The configuration that `to_json` wrote, in this or in an earlier version, validated.

    Keys that the file does not have take their defaults; `version` stays the file's.

    Args:
        text: the file's text.
        source: the file's name, for messages.

    Raises:
        UserError: not JSON, an unknown or repeated key, a bad value, no version or a newer one.
    """
    try:
        tree = json.loads(text, object_pairs_hook=_no_repeats)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON ({' '.join(str(error).split())})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{source}: expected a JSON object, found {shown(tree)}")
    try:
        return _build(checked_values(translated(flatten(tree))))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{shown(repeated)} is given twice, expected it once")
    return tree


def differences(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) of every key whose value differs, in the table's order."""
    return [(name, old[name], new[name]) for name in SCHEMA if old[name] != new[name]]


def resume_conflicts(
    old: Config, new: Config, *, also_free: Collection[str] = ()
) -> list[tuple[str, Any, Any]]:
    """Those of `differences` that forbid going on with one run as the other.

    `steps_per_dispatch` 0 stands for whatever the first run settled on, and decays may be told as
    parts of the run or as epochs.

    Args:
        old: of the first run.
        new: of the other.
        also_free: keys that may differ, beside those that always may.
    """
    same = {"steps_per_dispatch": new.steps_per_dispatch == 0}
    same["decay_epochs"] = decay_points(old) == decay_points(new)
    return [
        (name, before, now)
        for name, before, now in differences(old, new)
        if name not in {*RESUME_FREE_KEYS, *also_free} and not same.get(name)
    ]


def conflict_text(old: Config, new: Config, *, also_free: Collection[str] = ()) -> str:
    """`epochs = 3, not 30, seed = 0, not 1` of all `resume_conflicts`, "" where there is none."""
    return ", ".join(
        f"{name} = {as_text(before)}, not {as_text(now)}"
        for name, before, now in resume_conflicts(old, new, also_free=also_free)
    )


def identity_hash(config: Config) -> str:
    """Twelve hexadecimal digits of all that a run may not change when it goes on.

    Where its data come from is left out: they are known by their content. So is the step after
    which it ends: those before are the same.
    """
    values = {
        name: decay_points(config) if name == "decay_epochs" else config[name]
        for name in SCHEMA
        if name not in {*RESUME_FREE_KEYS, "version", "data.name", "steps", "steps_per_dispatch"}
    }
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


def decay_points(config: Config) -> list[float]:
    """The epochs after which the learning rate decays, parts of the run counted out."""
    return [
        float(point if point >= 1 else round(point * config.epochs, 6))
        for point in config.decay_epochs
    ]


def short_hash(config: Config, recipe_config: Config) -> str:
    """Eight hexadecimal digits of what sets a run apart from its recipe, "" where nothing does.

    Method and seed have their own place in the run directory's path, and keys that may change on
    resume must not change it.
    """
    changes = differences(recipe_config, config)
    changed = [[name, new] for name, _, new in changes if name not in _NOT_HASHED]
    return hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:8] if changed else ""
