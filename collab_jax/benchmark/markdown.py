"""The Markdown that every benchmark writes."""

from collections.abc import Iterable, Sequence

__all__ = ["heading", "table"]


def heading(title: str, about: str, command: str) -> list[str]:
    """The lines above a page's tables: what it shows, and the command that made it."""
    return [f"# {title}", "", about, "", f"Command: `{command}`"]


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table, an empty one first; all columns but the first are numbers."""
    lines = [columns, *rows]
    texts = [f"| {' | '.join(map(str, cells))} |" for cells in lines]
    return ["", texts[0], "|---|" + "---:|" * (len(columns) - 1), *texts[1:]]
