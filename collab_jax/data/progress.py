"""How far a long pass over data is: a bar on a terminal, else a line."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator

__all__ = ["progress"]

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def progress(title: str, total: int, *, is_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """Show a pass on standard error while the context is open.

    Args:
        title: what is done.
        total: images, or bytes.
        is_bytes: whether `total` counts bytes.

    Yields:
        What to call with the number of images or bytes done since the last call.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    if not sys.stderr.isatty():
        _log.info("%s", title)
        yield lambda count: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn() if is_bytes else MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)
