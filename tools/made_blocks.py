"""Parts of pages that programs make, between `<!-- NAME -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

__all__ = ["changes", "keep", "rewritten"]

ROOT = Path(__file__).resolve().parents[1]


def rewritten(text: str, made: Mapping[str, str]) -> str:
    """A page with those of its blocks that are in `made` as they are made."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        if name not in made:
            return match[0]
        return f"<!-- {name} -->\n\n{made[name]}\n\n<!-- end of {name} -->"

    return re.sub(r"<!-- ([a-z_/. ]+) -->\n.*?<!-- end of \1 -->", block, text, flags=re.DOTALL)


def changes(files: Iterable[str], made: Mapping[str, str]) -> Iterator[tuple[Path, str, str]]:
    """Each page that is not as made, as it is and as it should be."""
    for name in files:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = rewritten(before, made)
        if after != before:
            yield path, before, after


def keep(
    description: str,
    files: Iterable[str],
    made: Mapping[str, str],
    say: Callable[[str], object] = print,
) -> int:
    """The program of a tool that makes blocks; 0 if the pages are as made, or are now."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--write", action="store_true", help="write the pages")
    options = parser.parse_args()
    found = list(changes(files, made))
    for path, before, after in found:
        if options.write:
            path.write_text(after, encoding="utf-8")
            say(f"written: {path}")
        else:
            lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
            say(f"{path.name}\n" + "\n".join(lines))
    return 0 if options.write or not found else 1
