"""A pass through a Linen model that gives the local features of the layers one names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import flax.linen as nn
from flax.core import unfreeze
from flax.core.scope import in_filter, union_filters

from collab_jax.isolation import LOCAL_FEATURES, Captured, CaptureError, Selection
from collab_jax.isolation.captured import Feature, Read, Readout
from collab_jax.isolation.errors import (
    joins_nothing,
    method_called,
    needs_layers,
    never_called,
    nothing_matches,
)
from collab_jax.isolation.selection import Select
from collab_jax.linen.interception import intercepted, reading
from collab_jax.linen.passes import Gradient, Isolating, Watching

__all__ = ["capture"]

_INTERMEDIATES = "intermediates"


def capture(
    model: nn.Module,
    variables: Mapping[str, Any],
    *inputs: Any,
    layers: Select | None = None,
    then: Select | None = None,
    feature: Feature | None = None,
    mutable: bool | str | Sequence[str] = ("batch_stats",),
    joint: bool = True,
    gradient: Gradient = "local",
    readout: Readout | None = None,
    remat: bool = False,
    **options: Any,
) -> Captured:
    """Runs a Linen model and returns its outputs, its local features and its new variables.

    A feature is the output of a layer, equal to `layer(params, stop_gradient(x))`, so that a loss
    on it reaches that layer's parameters alone. Each layer runs once; what the model computes and
    updates, and the gradients of its outputs, are those of `model.apply`. It works under `jit`,
    `nn.remat`, `nn.scan`, `nn.vmap` and with shared modules; a scan or vmap must hand out what its
    body sows, `variable_axes={"intermediates": 0, ...}`.

    Args:
      model: any module; none of it need be edited.
      variables: its variable collections.
      *inputs: positional arguments of `model.apply`.
      layers: which modules are layers: a module class; a glob over their paths (`*` one segment,
        `**` any number); a predicate `(path, module)`; a sequence of these, in which `"!glob"`
        leaves out. None: the model sows the features itself, as `self.sow("intermediates",
        "local_features", h_local)`, at any depth.
      then: a selection in the same language; a module that receives the very array which a selected
        layer returned joins that layer: a convolution's normalisation, and an activation after it.
      feature: `feature(path, output)` is the feature of a layer whose output is no single array, or
        a transformation of the output, such as a ReLU.
      mutable: the collections that the pass updates.
      joint: False runs every layer a second time with stopped inputs instead, for forward-mode and
        higher derivatives.
      gradient: what a loss on a feature moves. "local": its layer alone. "through": the layer and
        all before it, as a loss on the output does. "both": each feature is a pair, the local copy
        first. "local_only": its layer alone, which no loss on the output moves any more: that
        gradient stops at each layer's output.
      readout: `readout(number)` gives for the number of a feature, from 0, what reads it: a
        function of it, such as a local classifier, whose readings stand among the features in its
        place. Their gradient is computed with that of the layer itself, from what products and
        convolutions gave, so that no gradient of a map waits for it. Arrays that are
        differentiated must be bound to the function by `jax.tree_util.Partial`. With `then`,
        `feature`, layers=None and joint=False, and of a scan or vmap, it reads the features after
        the pass.
      remat: whether the backward pass reads anew what was read inside of a layer, so that no map
        is kept for it: less memory, more compute. Nothing else is computed anew.
      **options: keyword arguments of `model.apply`, such as `train=True`, `rngs` and `method`.

    Returns:
      `(outputs, features, variables, paths)`: what the model returned, a tuple of N arrays in call
      order, the updated collections, and each feature's path: `b` and `b#2` of a module called
      twice, `b[0]` and `b[1]` of one in a scan.

    Raises:
      CaptureError: (a ValueError) if the selection matches no module, or one inside another, one
        that the pass does not call or calls by another method; if an output is no array; inside
        a scan or vmap that does not lift `intermediates`.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. III-B.
    """
    if gradient not in get_args(Gradient):
        raise CaptureError(
            f"gradient={gradient!r}: expected one of {', '.join(get_args(Gradient))}"
        )
    if layers is None and (then is not None or feature is not None or not joint):
        raise needs_layers()
    if layers is None and gradient != "local":
        raise CaptureError(
            f"gradient={gradient!r} needs layers: the model sows local copies alone itself"
        )
    run: Isolating | Watching
    if layers is None:
        run = Watching(LOCAL_FEATURES)
    else:
        follow = None if then is None else Selection(then, "then")
        run = Isolating(
            Selection(layers, "layers"), follow, feature, joint, gradient, readout, remat
        )
    given = {name: value for name, value in variables.items() if name != _INTERMEDIATES}
    with intercepted(run.intercept):
        outputs, updated = model.apply(
            given, *inputs, mutable=union_filters(mutable, _INTERMEDIATES), **options
        )
    updated = dict(unfreeze(updated))
    sown = updated.pop(_INTERMEDIATES, {})
    if isinstance(run, Isolating):
        _check_selected(run, given)
    elif not run.noted:
        raise CaptureError(
            f"{type(model).__name__} sows nothing named {run.name!r} into 'intermediates': name "
            f"its layers by layers=, or call self.sow('intermediates', {run.name!r}, h_local) "
            "for each layer, with (h, h_local) from collab_jax.linen.isolate(layer, x); an "
            "nn.scan or nn.vmap around it needs variable_axes={'intermediates': 0, ...}"
        )
    _check_complete(run, sown)
    features: Any
    features, paths = run.calls.collect(lambda path: _at(sown, path)[run.name])
    if readout is not None:
        with reading():
            features = tuple(
                feature.found if isinstance(feature, Read) else readout(number)(feature)
                for number, feature in enumerate(features)
            )
    if gradient == "both":
        through, _ = run.calls.collect(lambda path: _at(sown, path)[Isolating.through_name])
        features = tuple(zip(features, through, strict=True))
    if in_filter(mutable, _INTERMEDIATES):
        updated[_INTERMEDIATES] = _without(sown, run.name, Isolating.through_name)
    return Captured(outputs, features, updated, paths)


def _check_selected(run: Isolating, variables: Mapping[str, Any]) -> None:
    """Raises an error if a selection has missed."""
    for path, (module, method) in run.by_method.items():
        if path not in run.selected:
            raise method_called(run.layers, path, module, method)
    globs = run.layers.globs()
    missed = [path for path in _paths(variables) if path not in run.called and _selects(run, path)]
    if globs and missed:
        raise never_called(run.layers, missed)
    if not run.selected:
        raise nothing_matches(run.layers, run.called)
    if run.then is not None and not run.joined:
        there = [path for path, module in run.called.items() if run.then.matches(path, module)]
        if not there:
            raise nothing_matches(run.then, run.called)
        raise joins_nothing(run.then, there[0], run.layers)
    for error in run.pending.values():
        raise error


def _selects(run: Isolating, path: str) -> bool:
    """Whether a glob selects a path whose module is unknown, since it was never called."""
    return run.layers.names(path)


def _check_complete(run: Isolating | Watching, sown: Mapping[str, Any]) -> None:
    for path in _paths({"": sown}):
        values = _at(sown, path).get(run.name, ())
        if any((path, number) not in run.noted for number in range(len(values))):
            raise CaptureError(
                f"{path!r} runs in a program that nn.jit kept from an earlier call: give the model "
                "to jax.jit as a whole instead"
            )


def _at(tree: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    for name in path.split("/") if path else ():
        tree = tree[name]
    return tree


def _paths(variables: Mapping[str, Any]) -> list[str]:
    """The paths of the modules that have variables."""

    def inside(tree: Mapping[str, Any], path: str) -> Iterator[str]:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                below = f"{path}/{name}" if path else name
                yield below
                yield from inside(value, below)

    return list(dict.fromkeys(p for tree in variables.values() for p in inside(tree, "")))


def _without(tree: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A tree without the entries of names and without what is then empty."""
    kept = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            value = _without(value, *names)
        if key not in names and not (isinstance(value, Mapping) and not value):
            kept[key] = value
    return kept
