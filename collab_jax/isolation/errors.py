"""What can be wrong about a capture, in the words that both of Flax's module systems share."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from collab_jax.isolation.leaves import structure

if TYPE_CHECKING:
    from collab_jax.isolation.selection import Selection

__all__ = [
    "CaptureError",
    "method_called",
    "needs_layers",
    "never_called",
    "not_an_array",
    "not_lifted",
    "nothing_matches",
    "selected_inside",
]

_LISTED = 20


class CaptureError(ValueError):
    """A selection, or what it selected, cannot give local features; the message says the remedy.

    Attributes:
      argument: the name of the argument that is wrong.
    """

    def __init__(self, message: str, argument: str = "layers") -> None:
        super().__init__(message)
        self.argument = argument


def needs_layers() -> CaptureError:
    """What says how layers are isolated was given without a selection of them."""
    return CaptureError(
        "then, feature and joint=False need layers: without it the model isolates its layers itself"
    )


def nothing_matches(selection: "Selection", paths: Iterable[str]) -> CaptureError:
    """No module is selected; lists the paths that there are.

    Args:
      selection: what was asked for.
      paths: the paths of all modules, the root's "" excepted or not.
    """
    there = [path for path in dict.fromkeys(paths) if path]
    close = [
        match for glob in selection.globs() for match in difflib.get_close_matches(glob, there, n=1)
    ]
    hint = f"did you mean {close[0]!r}? " if close else ""
    return CaptureError(
        f"{selection} selects none of the model's modules; {hint}there are {_listed(there)}",
        selection.argument,
    )


def selected_inside(selection: "Selection", path: str, outer: str) -> CaptureError:
    """A selected module runs inside another selected one."""
    return CaptureError(
        f"{selection} selects {path!r} and {outer!r}, which it runs inside of: a layer has one "
        f"local copy; leave one of them out, such as with '!{path}'",
        selection.argument,
    )


def not_an_array(path: str, module: Any, output: Any, by_feature: bool = False) -> CaptureError:
    """The output of a selected module, or what `feature` made of it, is no array.

    Args:
      path: the module's path.
      module: the module.
      output: what was given in place of an array.
      by_feature: whether `feature` gave it.
    """
    what = f"{path!r} ({type(module).__name__})"
    if by_feature:
        return CaptureError(f"feature gave {structure(output)} for {what}, not one array")
    return CaptureError(
        f"{what} returns {structure(output)}, not one array: pass feature=lambda path, output: "
        "and the array of it, such as output[0]"
    )


def never_called(selection: "Selection", paths: Iterable[str]) -> CaptureError:
    """Selected modules that the pass did not call."""
    return CaptureError(
        f"{selection} selects {_listed(list(paths))}, which the model did not call in this pass; "
        "leave them out, or run the part of the model that calls them",
        selection.argument,
    )


def joins_nothing(then: "Selection", path: str, layers: "Selection") -> CaptureError:
    """A module that should join a layer receives no array that a layer returned.

    Args:
      then: what should join.
      path: one of the modules that it selects.
      layers: the selection of layers.
    """
    return CaptureError(
        f"{then} selects {path!r}, but no such module receives the very array that a selected "
        f"layer returned; {layers} must select the module right before it",
        then.argument,
    )


def method_called(selection: "Selection", path: str, module: Any, methods: str) -> CaptureError:
    """A selected module is used by another method than `__call__`.

    Args:
      selection: what was asked for.
      path: the module's path.
      module: the module.
      methods: the methods that are or can be called.
    """
    return CaptureError(
        f"{selection} selects {path!r} ({type(module).__name__}), which is used by {methods} and "
        "not by __call__: select a module inside of it, or one around it",
        selection.argument,
    )


def not_lifted(path: str, transform: str, line: str) -> CaptureError:
    """A selected module runs inside a transform that does not hand its local copy out.

    Args:
      path: the module's path.
      transform: the transform, such as "nn.scan".
      line: what to add to its arguments.
    """
    return CaptureError(
        f"{path!r} runs inside {transform}, which does not hand out what a module sows: add {line}"
    )


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(map(repr, paths[:_LISTED])) + more
