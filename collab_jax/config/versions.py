"""What keys meant in earlier versions, and how a file of theirs is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from collab_jax.config.checks import is_older_version, typed
from collab_jax.config.schema import SCHEMA
from collab_jax.config.text import bad_value

__all__ = ["CHANGES", "FIRST_RESUMABLE", "Change", "is_resumable", "translated"]

FIRST_RESUMABLE = "0.2.0"
"""The first version whose runs go on as they began: the random numbers are this version's."""


def is_resumable(version: str) -> bool:
    """Whether a run that a version began can go on in this one."""
    return not is_older_version(version, FIRST_RESUMABLE)


@dataclass(frozen=True)
class Change:
    """One key that a version changed.

    Attributes:
        since: the version.
        key: dotted.
        default: the key's value, before, in files that do not name it.
        now: today's value, from all of the file's values; None for a key that is gone, which is
            refused unless it has its default.
    """

    since: str
    key: str
    default: Any
    now: Callable[[Mapping[str, Any]], Any] | None


def _per_example(old: Mapping[str, Any]) -> float:
    """L_pull-push was a norm over the images of a micro-batch, and is its mean over them."""
    names = ("pull_push.weight", "batch_size", "micro_batches")
    weight, batch_size, micro_batches = (typed(SCHEMA[name], old[name]) for name in names)
    return weight * batch_size / micro_batches


def _at_width_1(key: str) -> Callable[[Mapping[str, Any]], int]:
    """Filters of heads were the same at every width, and are in proportion below width 1."""

    def now(old: Mapping[str, Any]) -> int:
        filters, width = (
            typed(SCHEMA[key], old[key]),
            typed(SCHEMA["model.width"], old["model.width"]),
        )
        return round(filters / min(width, 1.0))

    return now


CHANGES = (
    # Whole epochs are what they were; only the default has become parts of the run.
    Change("0.2.0", "decay_epochs", (60, 120, 160), lambda old: old["decay_epochs"]),
    Change("0.2.0", "pull_push.weight", 0.01, _per_example),
    Change("0.2.0", "mid.head_width", 64, _at_width_1("mid.head_width")),
    Change("0.2.0", "pull_push.projection_width", 32, _at_width_1("pull_push.projection_width")),
)
"""Every change of a key, in the order of versions."""


def translated(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A file's values by dotted key, as this version means them, with defaults for the rest.

    Args:
        flat: values as the file holds them.

    Raises:
        UserError: a key that is gone and had a value of its own, or a value that does not fit.
    """
    values = {name: key.default for name, key in SCHEMA.items() if name != "version"} | dict(flat)
    version = flat.get("version")
    if not isinstance(version, str):
        return values
    changes = [change for change in CHANGES if is_older_version(version, change.since)]
    old = {**values, **{change.key: change.default for change in changes}, **flat}
    for change in changes:
        if change.now is not None:
            values[change.key] = change.now(old)
        elif values.pop(change.key, change.default) != change.default:
            expected = f"{change.default!r}: this key is gone since {change.since}"
            raise bad_value(change.key, flat[change.key], expected)
    return values
