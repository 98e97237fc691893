"""Functions of the user's own, named as `FILE.py:FUNCTION` or `package.module:FUNCTION`."""

import hashlib
import importlib.util
from pathlib import Path

from collab_jax.errors import UserError, reason

__all__ = ["file_of", "hash_of", "is_own", "split_name"]


def is_own(name: str) -> bool:
    """Whether a model's name is that of a function of the user's."""
    return ":" in name


def split_name(name: str) -> tuple[str, str]:
    """The file or module, and the function.

    Raises:
      UserError: if one of them is missing.
    """
    source, _, function = name.rpartition(":")
    if not source.strip() or not function.isidentifier():
        raise UserError(
            f"model.name = {name!r}: expected FILE.py:FUNCTION or package.module:FUNCTION"
        )
    return source, function


def file_of(name: str) -> Path:
    """The file that holds the function.

    Raises:
      UserError: if there is no such file or module.
    """
    source, _ = split_name(name)
    if source.endswith(".py"):
        path = Path(source).expanduser()
    else:
        try:
            found = importlib.util.find_spec(source)
        except (ImportError, ValueError):
            found = None
        except Exception as error:
            raise UserError(
                f"model.name = {name!r}: importing {source} raised {reason(error)}"
            ) from error
        if found is None or found.origin is None:
            raise UserError(
                f"model.name = {name!r}: no module {source!r} on Python's path; expected an "
                "installed package's, or FILE.py:FUNCTION"
            )
        path = Path(found.origin)
    if not path.is_file():
        raise UserError(
            f"model.name = {name!r}: file {source} not found; expected its path from the folder "
            "that the program is started in"
        )
    return path


def hash_of(name: str) -> str:
    """SHA-256 of the file that holds the function.

    Raises:
      UserError: if there is no such file or module.
    """
    return hashlib.sha256(file_of(name).read_bytes()).hexdigest()
