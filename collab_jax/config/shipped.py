"""The shipped recipes, studies and searches: found by name, listed with their first lines."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Literal

from collab_jax.config.text import did_you_mean
from collab_jax.errors import UserError

__all__ = ["find_shipped", "list_shipped"]

Kind = Literal["recipe", "study", "search"]

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = {"recipe": "", "study": "studies", "search": "searches"}
_FLAGS = {"recipe": "--config", "study": "--study", "search": "--search"}


def _folder(kind: Kind) -> Path:
    """A wheel carries configs/ inside the package, a checkout beside it."""
    inside = _PACKAGE / "configs"
    return (inside if inside.is_dir() else _PACKAGE.parent / "configs") / _FOLDERS[kind]


def list_shipped(kind: Kind) -> dict[str, str]:
    """Name and one-line description of everything shipped of a kind, by name."""
    found = {}
    for path in sorted(_folder(kind).glob("[!_]*.py")):
        # Read, not run: one file at fault must not take away the help.
        text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        found[path.stem] = text.partition("\n")[0]
    return found


def find_shipped(kind: Kind, file: str) -> Path:
    """The file that a path or a shipped name means.

    Args:
        kind: recipe, study or search.
        file: a path; or, where there is no such file, a shipped name, with or without the folder
            before it (`configs/`, `configs/studies/`, ...) and `.py` behind it.

    Raises:
        UserError: there is neither, or it is no file.
    """
    flag = _FLAGS[kind]
    if not file.strip():
        raise UserError(f"{flag} is empty, expected a {kind}'s file or name")
    path = Path(os.path.expanduser(file))
    # os.path takes names that no file can have for missing ones, where Path raises.
    if os.path.isfile(path):
        return path
    if os.path.isdir(path):
        raise UserError(f"{flag} {file}: is a directory, expected a {kind}'s Python file")
    if path.parent in (Path(), Path("configs") / _FOLDERS[kind]):
        shipped = _folder(kind) / f"{path.name.removesuffix('.py')}.py"
        if os.path.isfile(shipped):
            return shipped
    names = list_shipped(kind)
    hint = did_you_mean(path.stem, names) or f"; shipped are {', '.join(names)}"
    raise UserError(f"{flag} {file}: no such file or shipped {kind}{hint}")
