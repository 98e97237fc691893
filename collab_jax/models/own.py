"""Networks of the user's own, named as `FILE.py:FUNCTION` or `package.module:FUNCTION`."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

import flax.linen as nn

from collab_jax.errors import UserError, reason
from collab_jax.files.functions import file_of, split_name

__all__ = ["create_own"]


def create_own(name: str, num_classes: int) -> nn.Module:
    """Calls the user's function; its file is executed once in a process, and again if it changed.

    Args:
      name: `FILE.py:FUNCTION` or `package.module:FUNCTION`.
      num_classes: m, the function's only argument.

    Returns:
      The Linen module that it returned, called as `module(images, train=...)`.

    Raises:
      UserError: if the file, the function or what it returns is not as expected.
    """
    source, function = split_name(name)
    make = getattr(_imported(name), function, None)
    if not callable(make):
        raise UserError(
            f"model.name = {name!r}: {source} has no function {function!r}; expected "
            f"`def {function}(num_classes)`, which returns a flax.linen.Module"
        )
    try:
        model = make(num_classes)
    except TypeError as error:
        raise UserError(
            f"model.name = {name!r}: {function}({num_classes}) raised {error}; expected "
            f"`def {function}(num_classes)`"
        ) from error
    except Exception as error:
        # The function is the user's: it may raise anything.
        raise UserError(
            f"model.name = {name!r}: {function}({num_classes}) raised {reason(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"model.name = {name!r}: {function}({num_classes}) returned "
            f"{type(model).__name__}; expected a flax.linen.Module"
        )
    parameters = inspect.signature(type(model).__call__).parameters.values()
    named = any(p.name == "train" or p.kind is p.VAR_KEYWORD for p in parameters)
    if not named:
        raise UserError(
            f"model.name = {name!r}: {type(model).__name__}.__call__ has no argument `train`; "
            "expected `def __call__(self, images, train=False)`"
        )
    return model


def _imported(name: str) -> ModuleType:
    source, _ = split_name(name)
    path = file_of(name)
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        # Under a name of its own, so that it hides no module of that name.
        text = path.read_bytes()
        digest = hashlib.sha256(str(path.resolve()).encode() + b"\0" + text).hexdigest()
        own = f"collab_jax_own_{digest[:12]}"
        return sys.modules.get(own) or _executed(own, path, text)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"model.name = {name!r}: importing {source} raised {type(error).__name__}: {error}"
        ) from error


def _executed(own: str, path: Path, text: bytes) -> ModuleType:
    spec = importlib.util.spec_from_file_location(own, path)
    assert spec is not None
    module = sys.modules[own] = importlib.util.module_from_spec(spec)
    try:
        # Not by its loader, which takes a changed file of the same second and size for the old one.
        exec(compile(text, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[own]
        raise
    return module
