"""What the keys of a network of the user's own must satisfy, and which others it leaves idle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from collab_jax.config.schema import MODEL_STAGES, Config
from collab_jax.config.text import bad_value, did_you_mean
from collab_jax.errors import UserError
from collab_jax.files.functions import hash_of, is_own, split_name

__all__ = ["check_file", "contradictions", "without_effect"]

_OF_OWN = ("model.layers", "model.then", "model.split_at", "model.sha256", "kernel.layers")
_OF_OURS = (
    "model.width",
    "model.classifier_width",
    "model.dropout",
    "model.spatial_dropout",
    "model.drop_block",
    "model.drop_block_size",
    "model.dtype",
    "model.norm_groups",
    "kernel.stages",
    "multi_head.rescale",
)
_OF_LAYERS = {
    *("mid", "pull_push", "auxiliary", "self_distillation", "predsim", "hsic", "decov"),
}
"""The terms that read features of layers."""


def contradictions(c: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what was expected) of values that cannot go together with the network."""
    name, method = c["model.name"], c["method"]
    if not is_own(name):
        if name not in MODEL_STAGES:
            yield (
                "model.name",
                f"one of {', '.join(MODEL_STAGES)}, or FILE.py:FUNCTION or package.module:FUNCTION "
                f"of your own{did_you_mean(name, MODEL_STAGES)}",
            )
        for key in _OF_OWN:
            if c[key]:
                yield key, f"empty with {name}, as it is for a network of your own"
        return
    try:
        split_name(name)
    except UserError:
        yield "model.name", "FILE.py:FUNCTION or package.module:FUNCTION"
    if not re.fullmatch(r"([0-9a-f]{64})?", c["model.sha256"]):
        yield "model.sha256", "empty, or 64 hexadecimal digits"
    if method == "tree":
        yield "method", f"another with {name}: tree splits the stages of our own networks"
    if not c["model.layers"]:
        for term in {"auxiliary", "self_distillation", "decov"} & set(method.split("+")):
            yield "model.layers", f"modules of {name}, whose outputs method {term} takes"
        if "predsim" in method.split("+") and c["predsim.local_only"]:
            yield "model.layers", f"modules of {name}, at which the gradient stops"
    if c["model.then"] and not c["model.layers"]:
        yield "model.then", "empty where config.model.layers is empty, as it joins those"
    if "kernel" in method.split("+") and not c["kernel.layers"]:
        yield (
            "kernel.layers",
            f"the modules of {name} whose kernels method kernel covers, such as **/Conv_*",
        )


def without_effect(config: Config) -> dict[str, str]:
    """Keys that the network or its method makes no use of, each with what it is idle with."""
    name, method = config.model.name, config.method
    if not is_own(name):
        return {}
    reasons: dict[str, str] = dict.fromkeys(_OF_OURS, f"model {name}")
    terms = set(method.split("+"))
    if not terms & _OF_LAYERS:
        reasons |= dict.fromkeys(("model.layers", "model.then"), f"method {method}")
    if not terms & {"out", "r_drop"}:
        reasons["model.split_at"] = f"method {method}"
    return reasons


def check_file(config: Config) -> str:
    """The SHA-256 of the file that holds the network, "" for a network of ours.

    Raises:
      UserError: if there is no such file, or it is not the one that the config was made for.
    """
    name, expected = config.model.name, config.model.sha256
    if not is_own(name):
        return ""
    found = hash_of(name)
    if expected and found != expected:
        raise bad_value(
            "model.name",
            name,
            f"the file as it was when the run began, SHA-256 {expected[:12]}, found "
            f"{found[:12]}; put that file back, or train anew in another directory",
        )
    return found
