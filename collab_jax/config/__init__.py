"""A run's configuration: its keys, their checks, recipes, overrides and its file."""

from collab_jax.config.checks import check_against_data, parse_method, without_effect
from collab_jax.config.flags import FlagParser
from collab_jax.config.own_model import check_file
from collab_jax.config.resolve import (
    check_key,
    conflict_text,
    decay_points,
    differences,
    from_json,
    identity_hash,
    override,
    parse,
    recipe,
    replace,
    resume_conflicts,
    short_hash,
    terms,
    to_json,
    with_file,
)
from collab_jax.config.schema import (
    MODEL_LAYERS,
    MODEL_STAGES,
    RESUME_FREE_KEYS,
    RIVALS,
    SCHEMA,
    TERMS,
    Config,
)
from collab_jax.config.shipped import find_shipped, list_shipped
from collab_jax.config.text import as_text, describe, did_you_mean, list_keys
from collab_jax.config.versions import FIRST_RESUMABLE, is_resumable

__all__ = [
    "FIRST_RESUMABLE",
    "MODEL_LAYERS",
    "MODEL_STAGES",
    "RESUME_FREE_KEYS",
    "RIVALS",
    "SCHEMA",
    "TERMS",
    "Config",
    "FlagParser",
    "as_text",
    "check_against_data",
    "check_file",
    "check_key",
    "conflict_text",
    "identity_hash",
    "decay_points",
    "describe",
    "did_you_mean",
    "differences",
    "find_shipped",
    "from_json",
    "is_resumable",
    "list_keys",
    "list_shipped",
    "override",
    "parse",
    "parse_method",
    "recipe",
    "replace",
    "resume_conflicts",
    "short_hash",
    "terms",
    "to_json",
    "with_file",
    "without_effect",
]
