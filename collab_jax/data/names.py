"""What a data set's name was meant for, where no source knows it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from collab_jax.errors import meant

__all__ = ["meant_for"]

_KINDS = {
    "folder": "folder",
    "imagefolder": "folder",
    "image_folder": "folder",
    "directory": "folder",
    "csv": "csv",
    "hf": "hf",
    "huggingface": "hf",
}
_BY_ENDING = {".csv": "csv", ".parquet": "hf"}


def meant_for(name: str, known: Iterable[str]) -> str:
    """`; did you mean A or B?`, or nothing.

    Args:
        name: that no source knows, such as a folder's path without `folder:`.
        known: names of data sets.
    """
    path = Path(os.path.expanduser(name))
    kind, _, place = name.partition(":")
    by_ending = _BY_ENDING.get(path.suffix.lower())
    if path.is_dir():
        near = [f"folder:{name}"]
    elif by_ending and path.is_file():
        near = [f"{by_ending}:{name}"]
    elif place and (kinds := difflib.get_close_matches(kind.lower(), _KINDS, 1, 0.7)):
        near = [f"{_KINDS[kinds[0]]}:{place}"]
    else:
        near = difflib.get_close_matches(name.split("/")[0].lower(), known, 3)
    return meant(near)
