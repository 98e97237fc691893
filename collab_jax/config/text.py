"""Keys and values as text: on the command line, in messages, in lists of keys."""

import difflib
import textwrap
from collections.abc import Iterable
from typing import Any

from collab_jax.config.schema import SCHEMA, SECTIONS
from collab_jax.errors import UserError, cut, meant

__all__ = [
    "as_text",
    "bad_value",
    "describe",
    "did_you_mean",
    "full_key",
    "list_keys",
    "shown",
    "unknown_key",
]

_OTHER_NAMES = {
    "lr": "learning_rate",
    "rate": "learning_rate",
    "batch": "batch_size",
    "bs": "batch_size",
    "wd": "weight_decay",
    "data": "data.name",
    "dataset": "data.name",
    "model": "model.name",
    "arch": "model.name",
}


def shown(value: Any) -> str:
    """Any value on one line, short enough for a message."""
    try:
        text = repr(value) if isinstance(value, str) else as_text(value)
    except Exception:  # An object's own repr may fail; Python refuses to print huge integers.
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    text = text if text.isprintable() else ascii(text)
    return cut(text, 80)


def bad_value(name: str, value: Any, expected: str) -> UserError:
    """The error for one key: its name, its value and what was expected."""
    return UserError(f"config.{name} = {shown(value)}: expected {expected}")


def unknown_key(name: str) -> UserError:
    """The error for a key that does not exist, naming the nearest ones."""
    if name in SECTIONS:
        keys = ", ".join(key for key in SCHEMA if key.startswith(f"{name}."))
        return UserError(f"config.{name} is a section, expected one of its keys: {keys}")
    hint = did_you_mean(name, SCHEMA) or "; --keys lists them all"
    text = name if name.isprintable() and len(name) <= 60 else shown(name)
    return UserError(f"config.{text}: no such key{hint}")


def as_text(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return ",".join(as_text(item) for item in value) or "()"
    return value if isinstance(value, str) else repr(value).removesuffix(".0")


def full_key(word: str) -> str | None:
    """The key that a word means: itself, or by another name that is in use for it."""
    key = _OTHER_NAMES.get(word.lower(), word)
    return key if key in SCHEMA else None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`; did you mean A or B?`, or nothing where no option is near."""
    options = list(options)
    if (key := full_key(word)) in options:
        return meant([key])
    # A key's last part alone is a frequent slip: `width` for `model.width`.
    near = [option for option in options if option.split(".")[-1] == word.split(".")[-1]]
    near = near if 0 < len(near) <= 3 else difflib.get_close_matches(word, options, 2, 0.6)
    near = near or [
        option
        for leaf in difflib.get_close_matches(word, [o.split(".")[-1] for o in options], 1, 0.8)
        for option in options
        if option.split(".")[-1] == leaf
    ]
    return meant(near[:3])


def list_keys(word: str = "") -> str:
    """Keys with their defaults and meanings in at most 80 columns, for a terminal.

    Args:
        word: leaves out keys that hold it neither in their name nor in their meaning.

    Raises:
        UserError: no key holds it.
    """
    found = [key for key in SCHEMA.values() if word.lower() in f"{key.name} {key.doc}".lower()] or [
        SCHEMA[key] for key in (full_key(word),) if key
    ]
    if not found:
        raise UserError(f"--keys {shown(word)}: no key holds it{did_you_mean(word, SCHEMA)}")
    blocks = []
    for key in found:
        free = "; may change on resume" if key.resume_free else ""
        lines = textwrap.wrap(
            f"{key.doc} ({key.expected}{free})",
            80,
            initial_indent="    ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
        blocks.append("\n".join([f"{key.name}={as_text(key.default)}", *lines]))
    return "\n".join(blocks) + "\n"


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
