"""Which modules of a network are meant: a class, a glob over paths, a predicate, or several."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, Union, cast

import numpy as np

from collab_jax.isolation.errors import CaptureError

__all__ = ["Select", "Selection"]

Select: TypeAlias = Union[  # noqa: UP007 (a quoted name cannot stand beside |)
    type, str, Callable[[str, Any], bool], Sequence["Select"]
]
"""What may stand for a selection; `Selection` says what each means."""


class Selection:
    """A selection of modules, checked once.

    A module class selects its instances. A glob selects by the module's path, whose segments are
    joined by "/" (`blocks/0/conv`): `*` stands for one segment or a part of it, `**` for any number
    of segments, none included. A predicate is called with the path and the module. A sequence
    selects what any of its members does, but for what a member `"!glob"` leaves out. The model
    itself, whose path is "", is never selected.

    Attributes:
      argument: the name of the argument that it was given as, for messages.
    """

    def __init__(self, select: Select, argument: str = "layers"):
        """Checks a selection.

        Args:
          select: the class, glob, predicate or sequence.
          argument: the name that messages give it.

        Raises:
          CaptureError: if it is none of these, a glob is empty, or it leaves out without selecting.
        """
        self.argument = argument
        self._select = select
        self._match = _compile(select, argument)

    def matches(self, path: str, module: Any) -> bool:
        """Whether it selects the module at a path such as "blocks/0/conv"."""
        return path != "" and self._match(path, module)

    def names(self, path: str) -> bool:
        """Whether its globs select a path, whatever module stands there."""
        alone = isinstance(self._select, (type, str)) or callable(self._select)
        members = [self._select] if alone else cast(Sequence[Any], self._select)
        texts = [member for member in members if isinstance(member, str)]
        return bool(self.globs()) and _union(texts, self.argument)(path, None)

    def globs(self) -> list[str]:
        """The globs in it that select, for a hint at paths that are like them."""
        alone = isinstance(self._select, (type, str)) or callable(self._select)
        members = [self._select] if alone else cast(Sequence[Any], self._select)
        return [glob for glob in members if isinstance(glob, str) and not glob.startswith("!")]

    def __str__(self) -> str:
        return f"{self.argument}={_describe(self._select)}"


def _compile(select: Any, argument: str) -> Callable[[str, Any], bool]:
    if isinstance(select, type):
        return lambda path, module: isinstance(module, select)
    if isinstance(select, str):
        if select.startswith("!"):
            raise CaptureError(
                f"{argument}={select!r} leaves out and selects nothing; give both, such as "
                f'("**", {select!r})'
            )
        return _glob(select, argument)
    if isinstance(select, Sequence):
        return _union(cast(Sequence[Any], select), argument)
    if callable(select):
        return _predicate(select, argument)
    raise CaptureError(
        f"{argument} must be a module class, a glob over module paths, a predicate "
        f"(path, module) -> bool, or a sequence of these; got {select!r}",
        argument,
    )


def _union(members: Sequence[Any], argument: str) -> Callable[[str, Any], bool]:
    is_left_out = [isinstance(member, str) and member.startswith("!") for member in members]
    chosen = [
        _compile(member, argument)
        for member, out in zip(members, is_left_out, strict=True)
        if not out
    ]
    left_out = [
        _glob(member[1:], argument) for member, out in zip(members, is_left_out, strict=True) if out
    ]
    if not chosen:
        raise CaptureError(
            f"{argument}={_describe(members)} selects nothing; a sequence needs a module class, "
            "a glob or a predicate",
            argument,
        )

    def match(path: str, module: Any) -> bool:
        return any(one(path, module) for one in chosen) and not any(
            one(path, module) for one in left_out
        )

    return match


def _glob(glob: str, argument: str) -> Callable[[str, Any], bool]:
    segments = glob.split("/")
    if not all(segments):
        raise CaptureError(
            f"{argument}: the glob {glob!r} has an empty segment; paths are like 'blocks/0/conv'",
            argument,
        )

    def match(path: str, module: Any) -> bool:
        return _match_segments(segments, path.split("/"))

    return match


def _match_segments(globs: list[str], names: list[str]) -> bool:
    if not globs:
        return not names
    if globs[0] == "**":
        return any(_match_segments(globs[1:], names[skip:]) for skip in range(len(names) + 1))
    if not names or not fnmatch.fnmatchcase(names[0], globs[0]):
        return False
    return _match_segments(globs[1:], names[1:])


def _predicate(predicate: Callable[[str, Any], Any], argument: str) -> Callable[[str, Any], bool]:
    def match(path: str, module: Any) -> bool:
        result: Any = predicate(path, module)
        if not isinstance(result, (bool, cast(type, np.bool_))):
            raise CaptureError(
                f"{argument}: the predicate {_describe(predicate)} gave {result!r} for {path!r}; "
                "it must be a function (path, module) -> bool",
                argument,
            )
        return bool(result)

    return match


def _describe(select: Any) -> str:
    if isinstance(select, str):
        return repr(select)
    if isinstance(select, Sequence):
        return "(" + ", ".join(map(_describe, cast(Sequence[Any], select))) + ")"
    return getattr(select, "__name__", None) or repr(select)
