"""What a function writes into the dicts and lists that it is given."""

from typing import Any, cast

import jax

__all__ = ["apply_writes", "containers", "copies", "writes_since"]

_tree = cast(Any, jax.tree)


def containers(tree: Any) -> list[Any]:
    """The dicts and lists in a tree that a function may write into, in a fixed order."""
    found: list[Any] = []

    def visit(node: Any) -> bool:
        if isinstance(node, (dict, list)):
            found.append(node)
        return False

    _tree.leaves(tree, is_leaf=visit)
    return found


def copies(found: list[Any]) -> list[Any]:
    """Shallow copies, to compare with later."""
    return [container.copy() for container in found]


def writes_since(before: list[Any], found: list[Any]) -> list[tuple[int, Any]]:
    """The numbers and the contents of the containers that changed since `before`."""
    return [
        (number, new.copy())
        for number, (old, new) in enumerate(zip(before, found, strict=True))
        if _items(old) != _items(new)
    ]


def apply_writes(writes: list[tuple[int, Any]], found: list[Any]) -> None:
    """Puts contents from `writes_since` into containers of one's own."""
    for number, contents in writes:
        container = found[number]
        container.clear()
        if isinstance(container, dict):
            cast(Any, container).update(contents)
        else:
            container.extend(contents)


def _items(container: Any) -> list[tuple[Any, int]]:
    pairs: Any = (
        cast(Any, container).items() if isinstance(container, dict) else enumerate(container)
    )
    return [(key, id(value)) for key, value in pairs]
