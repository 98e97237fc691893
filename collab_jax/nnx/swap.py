"""A module's class replaced by a subclass for the time of a call."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flax import nnx

__all__ = ["Call", "Local", "attached", "path_of", "sown"]

_CALL = "_collab_call"
_COPIES = "copies"


class Local(nnx.Intermediate):
    """Local copies on their way out of the transforms that a layer runs in."""


class Call:
    """What an attached module asks for; compared by identity, so that no trace of it is reused.

    Attributes:
      path: the module's path in the model.
      on_call: `(call, module, method, args, kwargs)` in place of `method(module, *args, **kwargs)`.
      on_sow: `(call, module, variable_type, name, value)`, told before the module sows.
      on_method: `(call, name)`, told of a public method that is called.
    """

    def __init__(
        self,
        path: str,
        on_call: Callable[..., Any] | None = None,
        on_sow: Callable[..., None] | None = None,
        on_method: Callable[..., None] | None = None,
    ):
        self.path = path
        self.on_call = on_call
        self.on_sow = on_sow
        self.on_method = on_method

    def sow(self, module: Any, value: Any) -> int:
        """Sows a local copy and returns how many the module had sown before."""
        number = len(_captures(module).get(_COPIES, ()))
        nnx.Module.sow(module, Local, _COPIES, value)
        return number


@contextlib.contextmanager
def attached(model: nnx.Module, calls: Sequence[tuple[nnx.Module, Call]]) -> Iterator[None]:
    """Lets modules of a model ask `calls` first, and leaves no mark on any of them afterwards."""
    modules = [module for _, module in nnx.iter_modules(model)]
    asking = {id(module): call for module, call in calls}
    marks = ("__captures__", "_pytree__nodes", _CALL)
    before = [
        (module, type(module), {mark: vars(module)[mark] for mark in marks if mark in vars(module)})
        for module in modules
    ]
    try:
        for module in modules:
            call = asking.get(id(module))
            captures = getattr(module, "__captures__", ())
            if isinstance(module, nnx.List):  # Flax cannot sort this name among its numbers.
                captures = ()
            # Set past the check of the trace level: it is taken away before anyone could see it.
            nodes = module._pytree__nodes.update({"__captures__": True})
            object.__setattr__(module, "_pytree__nodes", nodes)
            if call is None:
                object.__setattr__(module, "__captures__", captures)
                continue
            object.__setattr__(module, "__captures__", (*captures, Local({})))
            object.__setattr__(module, _CALL, call)
            object.__setattr__(module, "__class__", _subclass(type(module)))
        yield
    finally:
        for module, kind, marked in before:
            object.__setattr__(module, "__class__", kind)
            for mark in marks:
                if mark in marked:
                    object.__setattr__(module, mark, marked[mark])
                elif mark in vars(module):
                    object.__delattr__(module, mark)


def sown(module: nnx.Module) -> tuple[Any, ...]:
    """The local copies of an attached module, as the model's transforms handed them out."""
    return _captures(module).get(_COPIES, ())


def path_of(path: Sequence[Any]) -> str:
    """A path as `nnx.iter_modules` gives it, as text."""
    return "/".join(map(str, path))


def _captures(module: Any) -> dict[str, Any]:
    (variable,) = (v for v in module.__captures__ if type(v) is Local)
    return variable.get_value()


@functools.cache
def _subclass(kind: type) -> type:
    """A subclass that looks the same and asks the module's `Call` first."""
    members = {
        name: _told(name, method)
        for name, method in inspect.getmembers_static(kind, inspect.isfunction)
        if not name.startswith("_") and not hasattr(nnx.Module, name)
    }
    if inspect.isroutine(inspect.getattr_static(kind, "__call__", None)):
        members["__call__"] = _asked(kind)
    members["sow"] = _sowing(kind)
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind)(kind.__name__, (kind,), {**members, **names})


def _asked(kind: Any) -> Callable[..., Any]:
    @functools.wraps(kind.__call__)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = getattr(self, _CALL, None)
        if call is None or call.on_call is None:
            return kind.__call__(self, *args, **kwargs)
        return call.on_call(call, self, kind.__call__, args, kwargs)

    return __call__


def _sowing(kind: Any) -> Callable[..., Any]:
    @functools.wraps(kind.sow)
    def sow(self: Any, variable_type: Any, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        call = getattr(self, _CALL, None)
        if call is not None and call.on_sow is not None:
            call.on_sow(call, self, variable_type, name, value)
        return kind.sow(self, variable_type, name, value, *args, **kwargs)

    return sow


def _told(name: str, method: Any) -> Callable[..., Any]:
    @functools.wraps(method)
    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = getattr(self, _CALL, None)
        if call is not None and call.on_method is not None:
            call.on_method(call, name)
        return method(self, *args, **kwargs)

    return told
