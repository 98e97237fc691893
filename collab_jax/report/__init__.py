"""A study as one HTML page and as Markdown, beside the paper's numbers; imports no JAX."""

import os
from collections.abc import Sequence
from pathlib import Path

from collab_jax.errors import RunError, UserError
from collab_jax.report.blocks import Figure, to_html, to_markdown
from collab_jax.report.collect import SearchData, StudyData, read_folder
from collab_jax.report.document import document

__all__ = ["read_folder", "write_report"]


def write_report(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Writes the report of studies, at whatever point they are.

    Args:
      folders: of studies, and of searches whose trials are shown with them.
      out: where `index.html` (which holds all it shows), `report.md` and its `figures/` go.

    Returns:
      The path of `index.html`.

    Raises:
      UserError: if a folder holds neither a study nor a search, or `out` cannot be written.
      RunError: if the disk does not take the report.
    """
    read = [read_folder(Path(folder)) for folder in folders]
    studies = [item for item in read if isinstance(item, StudyData)]
    searches = [item for item in read if isinstance(item, SearchData)]
    if not studies:
        raise UserError("no folder of a study given, expected one at least")
    blocks = document(studies, searches)
    target = Path(out)
    try:
        (target / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {target}: {error.strerror}; expected a folder that can be written"
        ) from None
    try:
        for block in blocks:
            if isinstance(block, Figure):
                (target / "figures" / block.name).write_bytes(block.content)
        (target / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
        page = target / "index.html"
        page.write_text(to_html(blocks), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{target}: the report could not be written ({error.strerror})") from error
    return page
