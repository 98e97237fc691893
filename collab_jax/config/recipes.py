"""Recipes: Python files with `get_config(method)`, the shipped ones and a user's own."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from collab_jax.config.checks import flatten, parse_method
from collab_jax.config.resolve import parse
from collab_jax.config.schema import Config
from collab_jax.config.shipped import find_shipped
from collab_jax.errors import UserError, cut

__all__ = ["call", "load", "split_argument"]


def split_argument(text: str) -> tuple[str, str | None]:
    """`FILE:METHOD` as (file, method), `FILE` as (file, None)."""
    if os.path.exists(os.path.expanduser(text)) or ":" not in text:
        return text, None
    file, _, method = text.rpartition(":")
    return file, method


def load(file: str, method: str | None = None) -> Config:
    """Runs a recipe and checks what it returns.

    Args:
        file: as `find_shipped` takes it.
        method: the argument of its `get_config`; None leaves it to the recipe's default.

    Returns:
        The configuration, which carries the recipe's name.

    Raises:
        UserError: no such file, an error in it (with its line), or not a valid configuration.
    """
    path = find_shipped("recipe", file)
    wanted = None if method is None else parse_method(method)
    given = call(path, "get_config(method)", *(() if wanted is None else (wanted,)))
    if not isinstance(given, ConfigDict):
        kind = type(given).__name__
        raise UserError(f"{path}: get_config returned {kind}, expected a ConfigDict")
    values = flatten(given)
    if values.get("name") == "":
        values["name"] = path.stem
    try:
        config = parse(values)
        if wanted is not None and config.method != wanted:
            raise UserError(f"get_config({wanted!r}) returned method {config.method}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def call(path: Path, signature: str, *arguments: Any) -> Any:
    """Runs a Python file and calls one function of it.

    Args:
        path: the file.
        signature: the function's name and parameters, such as `get_config(method)`.
        *arguments: what to call it with.

    Returns:
        What the function returns.

    Raises:
        UserError: no such function, or an error in the file (with its line).
    """
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), namespace)
        function = namespace.get(signature.partition("(")[0])
        if not callable(function):
            raise UserError(f"expected a function {signature}, found none")
        return function(*arguments)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.filename == str(path) and error.lineno else ""
        raise UserError(f"{path}{line}: syntax error: {error.msg}") from None
    except BaseException as error:  # A file may raise SystemExit or KeyboardInterrupt as well.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = f", line {lines[-1]}" if lines else ""
        raise UserError(f"{path}{line}: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    text = cut(" ".join(str(error).split()), 300)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
