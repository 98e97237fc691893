"""What a pass that captures local features gives, the same for both of Flax's module systems."""

from collections.abc import Callable, Sequence
from itertools import groupby, zip_longest
from typing import Any, NamedTuple

import jax

from collab_jax.isolation.errors import not_an_array
from collab_jax.isolation.leaves import is_array

__all__ = ["LOCAL_FEATURES", "Calls", "Captured", "Feature", "Paths", "Read", "Readout", "pick"]

LOCAL_FEATURES = "local_features"
"""The name under which a model that isolates its layers itself sows their local copies."""

Feature = Callable[[str, Any], Any]
"""Gives a module's feature from its path and its output."""

Readout = Callable[[int], Callable[[Any], Any]]
"""Gives for the number of a feature, from 0, what reads it; see `linen.capture`."""


@jax.tree_util.register_static
class Paths(tuple[str, ...]):
    """Paths of modules, a part of a pytree's structure: a jitted function may return them."""


class Captured(NamedTuple):
    """The result of `collab_jax.linen.capture` or `collab_jax.nnx.capture`.

    Attributes:
      outputs: what the model returned.
      features: N local feature maps in call order, each with a gradient path to its own layer
        alone, or what a `readout` gives of each.
      variables: what the pass updated: in Linen the mutable collections by name, in NNX the batch
        statistics as a state of arrays, which the module itself has taken on as well.
      paths: for each feature the path of the module that returned it. A module called again
        gives `b#2`; one in a scan gives `b[0]`, `b[1]`, a feature for each of its layers.
    """

    outputs: Any
    features: tuple[Any, ...]
    variables: Any
    paths: Paths


class Read(NamedTuple):
    """What was read of a feature inside of its layer."""

    found: Any


def pick(path: str, module: Any, output: Any, feature: Feature | None) -> Any:
    """The array of a module's output that is its feature.

    Args:
      path: the module's path.
      module: the module.
      output: what it returned.
      feature: the user's choice; None takes an output that is one array.

    Raises:
      CaptureError: if that is no array.
    """
    chosen = output if feature is None else feature(path, output)
    if not is_array(chosen):
        raise not_an_array(path, module, chosen, by_feature=feature is not None)
    return chosen


class Calls:
    """The order in which local copies were sown, which a collection sorted by name does not keep.

    A copy is known by its place and its number there. A body that is traced again (in a scan, under
    rematerialisation) notes the same copy again, which keeps its first place in the order.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], tuple[int | None, str]] = {}

    def number(self, path: str, number: int) -> int | None:
        """Where among all features a copy stands; None behind one that may prove to be several."""
        before = dict(self._found)
        if (path, number) in before:
            places = list(before)
            before = {place: before[place] for place in places[: places.index((path, number))]}
        return len(before) if all(rank is None for rank, _ in before.values()) else None

    def note(
        self,
        path: str,
        number: int,
        shape: tuple[int, ...],
        *,
        stacked: bool = True,
        scan: str = "",
    ) -> tuple[str, int]:
        """Notes a copy and returns what `forget` takes.

        Args:
          path: where it is sown, as `Captured.paths` shall name it.
          number: how many were sown there before.
          shape: its shape as the module gives it, inside of whatever transform it runs in.
          stacked: whether axes that a transform adds in front of it count layers; those of a
            `vmap` over examples do not.
          scan: the scan whose body it runs in, if any; what the same body sows is then taken
            together, layer by layer.
        """
        self._found.setdefault((path, number), (len(shape) if stacked else None, scan))
        return path, number

    def forget(self, call: tuple[str, int]) -> None:
        """Takes a copy out, which a module that joined its layer has replaced."""
        self._found.pop(call, None)

    def paths(self) -> set[str]:
        """The places that sowed."""
        return {path for path, _ in self._found}

    def collect(self, sown: Callable[[str], Sequence[Any]]) -> tuple[tuple[Any, ...], Paths]:
        """Features and their paths in call order.

        Args:
          sown: the arrays that were sown at a path, as the model's transforms hand them out, or
            what was read of them.
        """
        features: list[Any] = []
        paths: list[str] = []
        for _, body in groupby(self._found.items(), key=lambda call: call[1][1] or call[0]):
            stacks = [
                [
                    (path + (f"#{number + 1}" if number else "") + index, array)
                    for index, array in _unstacked(sown(path)[number], rank)
                ]
                for (path, number), (rank, _) in body
            ]
            for layer in zip_longest(*stacks):
                for name, array in filter(None, layer):
                    paths.append(name)
                    features.append(array)
        return tuple(features), Paths(paths)


def _unstacked(array: Any, rank: int | None, index: str = "") -> list[tuple[str, Any]]:
    """The layers of a scan, whose copies lie behind one another along leading axes."""
    if rank is None or array.ndim <= rank:
        return [(index, array)]
    return [
        layer
        for i in range(array.shape[0])
        for layer in _unstacked(array[i], rank, f"{index}[{i}]")
    ]
