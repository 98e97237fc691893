"""A run's configuration: defaults, recipes, overrides, and its file in the run directory.

The keys themselves, with types, ranges and meanings, are the table in `config_schema`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from collab_jax.config.checks import (
    bad_value,
    checked_values,
    flatten,
    is_older_version,
    parse_method,
    shown,
    typed,
    unknown_key,
)
from collab_jax.config.schema import (
    OTHER_METHODS,
    RESUME_FREE_KEYS,
    SCHEMA,
    Key,
)
from collab_jax.errors import UserError

__all__ = [
    "check_key",
    "default_config",
    "differences",
    "from_json",
    "override",
    "recipe",
    "resume_conflicts",
    "short_hash",
    "terms",
    "to_json",
]

# The run directory's path already tells them, or they do not change the result.
_NOT_HASHED = RESUME_FREE_KEYS | {"method", "seed"}


def default_config() -> ConfigDict:
    """A locked ConfigDict of every key's default: CIFAR-10, VGG-16, baseline."""
    config = ConfigDict()
    for key in SCHEMA.values():
        section, _, name = key.name.rpartition(".")
        if section and section not in config:
            config[section] = ConfigDict()
        (config[section] if section else config)[name] = key.default
    return config.lock()


def recipe(method: str = "baseline", overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The defaults with a method and a recipe's own values.

    Args:
        method: as `parse_method` takes it.
        overrides: values by key, nested by section or dotted:
            `{"epochs": 40, "data": {"name": "cifar100"}, "model.name": "resnet18"}`.

    Raises:
        UserError: an unknown key or method, a wrong type or a value out of range.
    """
    config = default_config()
    for name, value in {"method": method, **flatten(overrides or {})}.items():
        _set(config, name, value)
    return config


def _set(config: ConfigDict, name: str, value: Any) -> None:
    check_key(name)
    value = typed(SCHEMA[name], value)
    if name == "method":
        value = parse_method(value)
    section, _, leaf = name.rpartition(".")
    (config[section] if section else config)[leaf] = value


def terms(method: str) -> tuple[str, ...]:
    """The collaborations that a method turns on; none for baseline, tree and multi_instance."""
    canonical = parse_method(method)
    return () if canonical in OTHER_METHODS else tuple(canonical.split("+"))


def check_key(key: str) -> None:
    """Raises the UserError of an unknown key, naming the nearest."""
    if key not in SCHEMA:
        raise unknown_key(key)


def override(config: ConfigDict, key: str, text: str) -> None:
    """Set one key from the text of a command-line value, in place.

    Args:
        config: a configuration with every key.
        key: dotted name, such as `model.width`.
        text: `3`, `0.1`, `true`, `60,120,160` or any text, by the key's type.

    Raises:
        UserError: an unknown key (the nearest is named), or a value that does not fit it.
    """
    check_key(key)
    _set(config, key, _parse(SCHEMA[key], text))


def _parse(key: Key, text: str) -> Any:
    try:
        if key.kind is bool:
            return {"true": True, "false": False}[text.strip().lower()]
        if key.kind is int:
            return _parse_int(text)
        if key.kind is float:
            if not text.isascii() or "_" in text:
                raise ValueError(text)
            return float(text)
        if key.kind is tuple:
            return _parse_ints(text)
    except (ValueError, KeyError):
        raise bad_value(key.name, text, key.expected) from None
    return text


def _parse_ints(text: str) -> tuple[int, ...]:
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("()", "[]"):
        inner = inner[1:-1].strip()
    parts = inner.removesuffix(",").split(",")
    return () if parts == [""] else tuple(_parse_int(part) for part in parts)


def _parse_int(text: str) -> int:
    # int() itself also takes 1_000, other alphabets' digits, and refuses long ones with advice.
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", text):
        raise ValueError(text)
    return int(text)


def to_json(config: ConfigDict) -> str:
    """The resolved configuration as the text of a run's `config.json`, in the table's order."""
    tree: dict[str, Any] = {}
    for name in SCHEMA:
        section, _, leaf = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[leaf] = config[name]
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"


def from_json(text: str, source: str = "config.json") -> ConfigDict:
    """The configuration that `to_json` wrote, validated.

    Keys that an older version did not have take their defaults.

    Args:
        text: the file's text.
        source: the file's name, for messages.

    Raises:
        UserError: not JSON, an unknown, repeated or missing key, a bad value, a newer version.
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
        flat = flatten(tree)
        if isinstance(flat.get("version"), str) and is_older_version(flat["version"]):
            flat = {**{name: key.default for name, key in SCHEMA.items()}, **flat}
        return recipe(overrides=checked_values(flat))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{shown(repeated)} is given twice, expected it once")
    return tree


def differences(old: ConfigDict, new: ConfigDict) -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) of every key whose value differs, in the table's order."""
    return [(name, old[name], new[name]) for name in SCHEMA if old[name] != new[name]]


def resume_conflicts(old: ConfigDict, new: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Those of `differences` that forbid going on with one run as the other.

    `steps_per_dispatch` 0 stands for whatever the first run settled on.
    """
    return [
        (name, before, now)
        for name, before, now in differences(old, new)
        if name not in RESUME_FREE_KEYS and (name, now) != ("steps_per_dispatch", 0)
    ]


def short_hash(config: ConfigDict, recipe_config: ConfigDict) -> str:
    """Eight hexadecimal digits of what sets a run apart from its recipe, "" where nothing does.

    Method and seed have their own place in the run directory's path, and keys that may change on
    resume must not change it.
    """
    changes = differences(recipe_config, config)
    changed = [[name, new] for name, _, new in changes if name not in _NOT_HASHED]
    return hashlib.sha256(json.dumps(changed).encode()).hexdigest()[:8] if changed else ""
