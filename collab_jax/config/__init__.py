"""A run's configuration: its keys, their checks, recipes, overrides and its file."""

from collab_jax.config.checks import check_against_data, parse_method, validate, without_effect
from collab_jax.config.resolve import (
    check_key,
    default_config,
    differences,
    from_json,
    override,
    recipe,
    resume_conflicts,
    short_hash,
    terms,
    to_json,
)
from collab_jax.config.schema import RESUME_FREE_KEYS, SCHEMA, as_text, describe, did_you_mean

__all__ = [
    "RESUME_FREE_KEYS",
    "SCHEMA",
    "as_text",
    "check_against_data",
    "check_key",
    "default_config",
    "describe",
    "did_you_mean",
    "differences",
    "from_json",
    "override",
    "parse_method",
    "recipe",
    "resume_conflicts",
    "short_hash",
    "terms",
    "to_json",
    "validate",
    "without_effect",
]
