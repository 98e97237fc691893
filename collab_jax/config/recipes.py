"""Recipes: Python files with `get_config(method)`, the shipped ones and a user's own."""

from __future__ import annotations

import ast
import os
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from collab_jax.config.checks import parse_method, validate
from collab_jax.config.resolve import from_json, to_json
from collab_jax.config.schema import did_you_mean
from collab_jax.errors import UserError

__all__ = [
    "call",
    "find",
    "list_recipes",
    "load",
    "shipped_dir",
    "split_argument",
]

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_dir() -> Path:
    """The folder of the shipped recipes: a wheel carries them inside the package."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def list_recipes() -> dict[str, str]:
    """Name and one-line description of every shipped recipe, by name."""
    recipes = {}
    for path in sorted(shipped_dir().glob("[!_]*.py")):
        # Read, not run: one recipe at fault must not take away the help.
        text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        recipes[path.stem] = text.partition("\n")[0]
    return recipes


def split_argument(text: str) -> tuple[str, str | None]:
    """`FILE:METHOD` as (file, method), `FILE` as (file, None)."""
    if os.path.exists(os.path.expanduser(text)) or ":" not in text:
        return text, None
    file, _, method = text.rpartition(":")
    return file, method


def find(file: str) -> Path:
    """The recipe that a path or the name of a shipped recipe means.

    Args:
        file: a path; or, where there is no such file, a shipped recipe's name, with or without
            `configs/` before it and `.py` behind it.

    Raises:
        UserError: there is neither, or it is no file.
    """
    if not file.strip():
        raise UserError("--config is empty, expected a recipe's file or name")
    path = Path(os.path.expanduser(file))
    # os.path takes names that no file can have for missing ones, where Path raises.
    if os.path.isfile(path):
        return path
    if os.path.isdir(path):
        raise UserError(f"--config {file}: is a directory, expected a recipe's Python file")
    if path.parent in (Path(), Path("configs")):
        shipped = shipped_dir() / f"{path.name.removesuffix('.py')}.py"
        if os.path.isfile(shipped):
            return shipped
    recipes = list_recipes()
    hint = did_you_mean(path.stem, recipes) or f"; shipped are {', '.join(recipes)}"
    raise UserError(f"--config {file}: no such file or shipped recipe{hint}")


def load(file: str, method: str | None = None) -> ConfigDict:
    """Runs a recipe and checks what it returns.

    Args:
        file: as `find` takes it.
        method: the argument of its `get_config`; None leaves it to the recipe's default.

    Returns:
        A valid configuration that carries the recipe's name.

    Raises:
        UserError: no such file, an error in it (with its line), or not a valid configuration.
    """
    path = find(file)
    wanted = None if method is None else parse_method(method)
    config = call(path, "get_config(method)", *(() if wanted is None else (wanted,)))
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise UserError(f"{path}: get_config returned {kind}, expected a ConfigDict")
    try:
        validate(config)
        if wanted is not None and config.method != wanted:
            raise UserError(f"get_config({wanted!r}) returned method {config.method}")
        # A fresh copy in the table's own types, whatever the recipe built its own from.
        config = from_json(to_json(config))
        config.name = config.name or path.stem
        validate(config)
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
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = f", line {lines[-1]}" if lines else ""
        raise UserError(f"{path}{line}: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
