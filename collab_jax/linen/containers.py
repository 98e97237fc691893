"""What a module writes into the dictionaries and lists that it is given."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

__all__ = ["Containers"]


class Containers:
    """The dictionaries and lists in a tree of arguments, and what they held at first."""

    def __init__(self, tree: Any) -> None:
        self._found: list[Any] = []
        self._collect(tree)
        self._before = [dict(_items(container)) for container in self._found]

    def _collect(self, tree: Any) -> None:
        if isinstance(tree, (dict, list)):
            self._found.append(tree)
        if isinstance(tree, (dict, list, tuple)):
            for _, value in _items(tree):
                self._collect(value)

    def changes(self) -> dict[int, tuple[list[Any], "_Keys"]]:
        """What was set since then, with its keys and the removed ones, by container."""
        changes = {}
        for number, (container, before) in enumerate(zip(self._found, self._before, strict=True)):
            now = _contents(container)
            new = [key for key in now if key not in before or now[key] is not before[key]]
            removed = [key for key in before if key not in now]
            if new or removed:
                changes[number] = ([now[key] for key in new], _Keys(new, removed))
        return changes

    def apply(self, changes: Mapping[int, tuple[list[Any], "_Keys"]]) -> None:
        """Makes the changes of another object, made from a tree of the same structure."""
        for number, (values, keys) in changes.items():
            container = self._found[number]
            for key in reversed(keys.removed):
                del container[key]
            for key, value in zip(keys.new, values, strict=True):
                if isinstance(container, list) and key == len(container):
                    container.append(value)
                else:
                    container[key] = value


class _Keys:
    """A leaf that holds keys of any kind."""

    def __init__(self, new: list[Any], removed: list[Any]) -> None:
        self.new, self.removed = new, removed


def _contents(container: Any) -> dict[Any, Any]:
    return dict(container.items() if isinstance(container, dict) else enumerate(container))


def _items(container: Any) -> list[tuple[Any, Any]]:
    """Pairs in the order in which JAX takes a tree apart, which is that of any copy of it."""
    pairs = list(_contents(container).items())
    is_sorted = isinstance(container, dict) and not isinstance(container, OrderedDict)
    return sorted(pairs, key=lambda pair: pair[0]) if is_sorted else pairs
