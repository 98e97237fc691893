"""Capture from outside: any NNX model gives local features, and none of its lines changes."""

from collections.abc import Iterable
from typing import Any

import jax
from flax import nnx

from collab_jax.isolation import LOCAL_FEATURES, Calls, Captured, CaptureError, Selection, pick
from collab_jax.isolation.captured import Feature
from collab_jax.isolation.errors import (
    joins_nothing,
    method_called,
    needs_layers,
    never_called,
    not_lifted,
    nothing_matches,
    selected_inside,
)
from collab_jax.isolation.leaves import is_array
from collab_jax.isolation.selection import Select
from collab_jax.nnx.local import call_isolated
from collab_jax.nnx.swap import Call, attached, path_of, sown

__all__ = ["capture"]


def capture(
    model: nnx.Module,
    *inputs: Any,
    layers: Select | None = None,
    then: Select | None = None,
    feature: Feature | None = None,
    joint: bool = True,
    **options: Any,
) -> Captured:
    """Runs an NNX model and returns its outputs, local features of layers, and new statistics.

    Each selected module is called with a local copy of its output, as `isolate` would, while the
    model's own code stays as it is: outputs, state and the gradients of the outputs are those of
    `model(*inputs, **options)`, to the bit. A loss on a feature reaches the parameters of its own
    layer, the variables of type `nnx.Param`, and nothing else.

    For the time of the call the class of a selected module is a subclass of its own. Call it inside
    of what `nnx.jit`, `nnx.grad` and the like are given. What the model sows itself is dropped,
    unless the call runs inside of Flax's own `nnx.capture`, which then returns it.

    Args:
      model: the model, whose batch statistics and random number streams are updated in place.
      *inputs: positional arguments of the model.
      layers: which modules; see `collab_jax.isolation.Selection`. None: what the model sows itself
        as `self.sow(nnx.Intermediate, "local_features", h_local)`, in whatever module.
      then: a selection in the same language. A module that receives, as its first argument, the
        very array that a selected layer returned joins that layer, such as a norm after its
        convolution, and the feature is its output. A module that `layers` selects never joins.
      feature: `(path, output) -> array`, which array of a module's output is the feature, or a
        transformation of it; without it, an output that is one array.
      joint: False runs every layer a second time with stopped inputs instead, for forward-mode and
        higher derivatives.
      **options: keyword arguments of the model.

    Returns:
      `(outputs, features, variables, paths)`: what the model returned, a tuple of N arrays in call
      order, the new batch statistics as arrays, which `nnx.update(model, variables)` puts into
      another copy, and the features' paths. A module called again gives `path#2`, one in an
      `nnx.scan` or `nnx.vmap` over its parameters `path[0]`, `path[1]`.

    Raises:
      CaptureError: if the selection is none, or selects no module, one inside another, one that the
        pass does not call or calls by another method, or one whose output is no array.
      TypeError: if `model` is no module.
    """
    if not isinstance(model, nnx.Module):
        raise TypeError(f"model must be an nnx.Module, got {model!r}")
    if layers is None:
        if then is not None or feature is not None or not joint:
            raise needs_layers()
        attachment: _Sown | _Selected = _Sown(model)
    else:
        chosen = Selection(layers, "layers")
        following = None if then is None else Selection(then, "then")
        attachment = _Selected(model, chosen, following, feature, joint)
    by_path = {call.path: module for module, call in attachment.asked}
    with attached(model, attachment.asked):
        try:
            outputs = model(*inputs, **options)  # pyright: ignore[reportCallIssue]
        except Exception as error:
            if "__captures__" in str(error):
                error.add_note(_NOT_LIFTED)
            raise
        attachment.check()
        features, paths = attachment.calls.collect(
            lambda path: _handed_out(path, by_path[attachment.at(path)])
        )
        variables = nnx.as_pure(nnx.state(model, nnx.BatchStat))
    return Captured(outputs, features, variables, paths)


_LINE = "nnx.Intermediate: 0, first in the nnx.StateAxes of the module"
_NOT_LIFTED = (
    "collab_jax.nnx.capture: a transform that a selected layer runs in must hand out what the "
    f"layer sows: give it {_LINE}, such as nnx.StateAxes({{nnx.Intermediate: 0, ...: None}})"
)


def _handed_out(path: str, module: nnx.Module) -> tuple[Any, ...]:
    copies = sown(module)
    if not copies:
        raise not_lifted(path, "a transform", _LINE)
    return copies


def _ordered(paths: Iterable[str]) -> list[str]:
    """Paths with their numbers in order, each after the one that it lies in."""

    def key(path: str) -> list[tuple[int, str]]:
        return [(int(s), "") if s.isdigit() else (-1, s) for s in path.split("/")]

    return sorted(paths, key=key)


def _shapes(module: nnx.Module) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))]


class _Sown:
    """Features that the model sows itself, in call order."""

    def __init__(self, model: nnx.Module):
        self.calls = Calls()
        self.asked = [
            (module, Call(path_of(path), on_sow=self.on_sow))
            for path, module in nnx.iter_modules(model)
            if not isinstance(module, nnx.List)  # which sows nothing
        ]
        self._model = type(model).__name__

    def on_sow(self, call: Call, module: Any, variable_type: Any, name: str, value: Any) -> None:
        if variable_type is nnx.Intermediate and name == LOCAL_FEATURES:
            path = f"{call.path}/{name}".removeprefix("/")
            self.calls.note(path, call.sow(module, value), value.shape)

    def at(self, path: str) -> str:
        return path.removesuffix(LOCAL_FEATURES).removesuffix("/")

    def check(self) -> None:
        if not self.calls.paths():
            raise CaptureError(
                f"{self._model} sows nothing named {LOCAL_FEATURES!r} as nnx.Intermediate: select "
                "its layers, as in layers=nnx.Conv, or call self.sow(nnx.Intermediate, "
                f"{LOCAL_FEATURES!r}, h_local) in it, with (h, h_local) from "
                "collab_jax.nnx.isolate(layer, x)"
            )


class _Selected:
    """Features of the modules that a selection names."""

    def __init__(
        self,
        model: nnx.Module,
        layers: Selection,
        then: Selection | None,
        feature: Feature | None,
        joint: bool,
    ):
        self.calls = Calls()
        self._layers, self._feature, self._joint = layers, feature, joint
        self._called: set[str] = set()
        self._methods: dict[str, list[str]] = {}
        self._running: list[str] = []
        self._followed: dict[int, tuple[Any, Any, Any]] = {}
        self._then, self._may_follow = then, then is not None
        self._following: list[str] = []
        self._joined = False
        modules = [(path_of(path), module) for path, module in nnx.iter_modules(model)]
        self._modules = {path: module for path, module in modules if layers.matches(path, module)}
        if not self._modules:
            raise nothing_matches(layers, _ordered(path for path, _ in modules))
        for path, module in self._modules.items():
            outer = next((p for p in self._modules if path.startswith(f"{p}/")), None)
            if outer is not None:
                raise selected_inside(layers, path, outer)
            if not callable(module):
                raise method_called(layers, path, module, "its parts or methods")
        self.asked = [
            (module, Call(path, on_call=self.on_call, on_method=self.on_method))
            for path, module in self._modules.items()
        ]
        if then is not None:
            following = [
                (module, Call(path, on_call=self.on_following))
                for path, module in modules
                if path not in self._modules and callable(module) and then.matches(path, module)
            ]
            if not following:
                raise nothing_matches(then, _ordered(path for path, _ in modules))
            self.asked += following
            self._following = [call.path for _, call in following]
        self._shapes = {call.path: _shapes(module) for module, call in self.asked}

    def on_call(self, call: Call, module: Any, method: Any, args: Any, kwargs: Any) -> Any:
        if self._running:
            raise selected_inside(self._layers, call.path, self._running[-1])
        self._called.add(call.path)
        return self._isolated(call, module, method, args, kwargs)

    def on_following(self, call: Call, module: Any, method: Any, args: Any, kwargs: Any) -> Any:
        before = None
        if not self._running and args:
            before = self._followed.get(id(args[0]))
        if before is None:
            return method(module, *args, **kwargs)
        _, twin, joined = before
        self._joined = True
        self.calls.forget(joined)
        return self._isolated(call, module, method, args, kwargs, twin)

    def on_method(self, call: Call, name: str) -> None:
        if not self._running:
            self._methods.setdefault(call.path, []).append(name)

    def _isolated(
        self, call: Call, module: Any, method: Any, args: Any, kwargs: Any, twin: Any = None
    ) -> Any:
        def guarded(module: Any, *args: Any, **kwargs: Any) -> Any:
            # Here, since the rule for the gradient may be traced when this call has returned.
            self._running.append(call.path)
            try:
                return method(module, *args, **kwargs)
            finally:
                self._running.pop()

        def local_of(h: Any) -> Any:
            # The whole output has a copy for a module that may follow.
            copy = h if self._may_follow and is_array(h) else None
            return copy, pick(call.path, module, h, self._feature)

        h, (copy, local) = call_isolated(
            module, guarded, args, kwargs, local_of, twin=twin, joint=self._joint
        )
        # A vmap over examples leaves the parameters as they are, one over layers slices them.
        stacked = _shapes(module) != self._shapes[call.path]
        noted = self.calls.note(call.path, call.sow(module, local), local.shape, stacked=stacked)
        if copy is not None:
            self._followed[id(h)] = h, copy, noted
        return h

    def at(self, path: str) -> str:
        return path

    def check(self) -> None:
        missing = [path for path in self._modules if path not in self._called]
        for path in missing:
            if path in self._methods:
                methods = ", ".join(dict.fromkeys(self._methods[path]))
                raise method_called(self._layers, path, self._modules[path], methods)
        if missing:
            raise never_called(self._layers, missing)
        if self._then is not None and not self._joined:
            raise joins_nothing(self._then, self._following[0], self._layers)
