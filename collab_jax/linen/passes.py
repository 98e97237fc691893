"""What is done at each call of a module while a capturing pass runs."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
from jax.tree_util import Partial

from collab_jax.isolation import Calls, CaptureError, Selection, pick
from collab_jax.isolation.captured import Feature, Read, Readout
from collab_jax.isolation.errors import not_an_array, not_lifted, selected_inside
from collab_jax.isolation.leaves import apart
from collab_jax.linen.interception import reading
from collab_jax.linen.joint import joint_call

__all__ = ["Gradient", "Isolating", "Watching"]

_COLLECTION = "intermediates"

Place = tuple[str, int]

Gradient = Literal["local", "through", "both", "local_only"]
"""What a loss on a layer's feature moves; see `capture`."""


class _Copy(NamedTuple):
    """An array that a selected layer returned, and its local copy."""

    array: Any
    local: Any
    place: Place


class Isolating:
    """Isolates every selected layer and sows its local copy at its own path.

    Attributes:
      layers: which modules are layers.
      then: which modules join a layer whose output they receive.
      calls: the order of the local copies.
      noted: the places of all local copies, those that were joined included.
      called: the modules that were called, by path.
      selected: the paths of the layers that were called.
      joined: the paths of the modules that joined a layer.
      by_method: selected modules that were used by another method, which is named.
      pending: for a copy that is no array, the error if nothing joins it.
      name: under which local copies are sown, or the outputs themselves where those are asked for.
      through_name: under which the outputs are sown beside the local copies.
    """

    name = "collab_local_copy"
    through_name = "collab_output"

    def __init__(
        self,
        layers: Selection,
        then: Selection | None,
        feature: Feature | None,
        joint: bool,
        gradient: Gradient,
        readout: Readout | None = None,
        remat: bool = False,
    ) -> None:
        self.layers, self.then = layers, then
        self._feature, self._joint, self._gradient = feature, joint, gradient
        self._readout, self._remat = readout, remat
        self.calls = Calls()
        self.noted: set[Place] = set()
        self.called: dict[str, nn.Module] = {}
        self.selected: set[str] = set()
        self.joined: set[str] = set()
        self.by_method: dict[str, tuple[nn.Module, str]] = {}
        self.pending: dict[Place, CaptureError] = {}
        self._copies: dict[int, _Copy] = {}
        self._inside: list[str] = []

    def intercept(
        self,
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        """The interceptor of `flax.linen.intercept_methods`."""
        module, method = context.module, context.method_name
        if module.scope is None or method == "setup":
            return next_call(*args, **kwargs)
        path = "/".join(module.path)
        if method != "__call__":
            if not self._inside and hasattr(type(module), method):
                if self.layers.matches(path, module):
                    self.by_method.setdefault(path, (module, method))
            return next_call(*args, **kwargs)
        self.called.setdefault(path, module)
        followed = self._followed(path, module, args, kwargs)
        if not followed and not self.layers.matches(path, module):
            return next_call(*args, **kwargs)
        if self._inside:
            if self._inside[-1] != path:
                raise selected_inside(self.layers, path, self._inside[-1])
            return next_call(*args, **kwargs)
        return self._isolate(path, module, next_call, args, kwargs, followed)

    def _followed(
        self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[int, _Copy]:
        """The layers that a module joins, by the numbers of the leaves that they returned."""
        if self.then is None or self._inside or not self.then.matches(path, module):
            return {}
        found = {}
        for number, leaf in enumerate(jax.tree.leaves((args, kwargs))):
            copy = self._copies.get(id(leaf))
            if copy is not None and copy.array is leaf:
                found[number] = copy
        return found

    def _isolate(
        self,
        path: str,
        module: nn.Module,
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        followed: Mapping[int, _Copy],
    ) -> Any:
        def within(call: Callable[[], Any]) -> Any:
            # In here, since a scan traces the forward rule when the interceptor has returned.
            self._inside.append(path)
            try:
                return call()
            finally:
                self._inside.pop()

        if self._gradient == "through":
            h = h_local = within(lambda: next_call(*args, **kwargs))
        else:
            local_inputs = {number: copy.local for number, copy in followed.items()}
            reader = self._reader(path, module)
            h, h_local = joint_call(
                module,
                args,
                kwargs,
                joint=self._joint,
                local_inputs=local_inputs,
                within=within,
                reader=reader,
                remat=self._remat,
            )
            if reader is not None:
                h_local = Read(h_local)
        if self._gradient == "local_only":
            arrays, restore = apart(h)
            h = restore([jax.lax.stop_gradient(array) for array in arrays])
        if followed:
            self.joined.add(path)
            for copy in followed.values():
                self.calls.forget(copy.place)
                self.pending.pop(copy.place, None)
        else:
            self.selected.add(path)
        place = self._sow(path, module, h_local)
        if self._gradient == "both" and place in self.noted:
            module.sow(_COLLECTION, self.through_name, pick(path, module, h, self._feature))
        if self.then is not None:
            pairs = zip(jax.tree.leaves(h), jax.tree.leaves(h_local), strict=True)
            self._copies.update((id(array), _Copy(array, local, place)) for array, local in pairs)
        return h

    def _reader(self, path: str, module: nn.Module) -> Any:
        """What reads a layer's output inside of it.

        None where that must wait: until other modules have joined the layer, or a scan has handed
        out its layers, whose number is known behind it alone. A function of the user's that gives
        the feature may close over arrays that are differentiated, and runs outside, too.
        """
        inside = self._joint and self.then is None and self._feature is None
        if self._readout is None or not inside or _transforms_of(module):
            return None
        sown = len(module.get_variable(_COLLECTION, self.name, ()))
        number = self.calls.number(path, sown)
        if number is None:
            return None

        def read(reader: Any, output: Any) -> Any:
            with reading():
                return reader(pick(path, module, output, None))

        return Partial(read, self._readout(number))

    def _sow(self, path: str, module: nn.Module, h_local: Any) -> Place:
        number = len(module.get_variable(_COLLECTION, self.name, ()))
        read = isinstance(h_local, Read)
        try:
            feature: Any = h_local if read else pick(path, module, h_local, self._feature)
        except CaptureError as error:
            if self.then is None:
                raise
            self.pending[path, number] = error
            return path, number
        if not module.sow(_COLLECTION, self.name, feature):
            line = "variable_axes={'intermediates': 0, ...}"
            scans = _transforms_of(module)
            where = "the nn.{} of {!r}".format(*scans[-1]) if scans else "an nn.scan or nn.vmap"
            raise not_lifted(path, where, line)
        self.noted.add((path, number))
        if read:
            return self.calls.note(path, number, (), stacked=False)
        return self.calls.note(path, number, feature.shape, scan=_scan_of(module))


class Watching:
    """Keeps the order in which a model sows its local features itself.

    Attributes:
      name: under which it sows them.
      calls: their order.
      noted: their places.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = Calls()
        self.noted: set[Place] = set()
        self._active: list[tuple[str, nn.Module]] = []

    def intercept(
        self,
        next_call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        """The interceptor of `flax.linen.intercept_methods`."""
        module = context.module
        if module.scope is None or context.method_name == "setup":
            return next_call(*args, **kwargs)
        if self._active:
            self._note(*self._active[-1])
        self._active.append(("/".join(module.path), module))
        try:
            output = next_call(*args, **kwargs)
            self._note(*self._active[-1])
        finally:
            self._active.pop()
        return output

    def _note(self, path: str, module: nn.Module) -> None:
        for number, value in enumerate(module.get_variable(_COLLECTION, self.name, ())):
            if (path, number) not in self.noted:
                if not isinstance(value, jax.Array):
                    raise not_an_array(path, module, value)
                self.noted.add((path, number))
                self.calls.note(path, number, value.shape, scan=_scan_of(module))


def _scan_of(module: nn.Module) -> str:
    """The path of the scan that a module runs in; "" outside of any."""
    return next((path for name, path in reversed(_transforms_of(module)) if name == "scan"), "")


def _transforms_of(module: nn.Module) -> list[tuple[str, str]]:
    """The scans and vmaps that a module runs in, from the outermost in, with their paths."""
    path: list[str] = []
    found: list[tuple[str, str]] = []
    for segment in module.scope.debug_path if module.scope is not None else ():
        *transforms, name = segment.replace(")", "").split("(")
        path.append(name)
        found += [(name, "/".join(path)) for name in transforms if name in ("scan", "vmap")]
    return found
