"""The parts of docs/ that come from the code: recipes, keys, whole programs.

Command:
    python tools/docs_blocks.py            # tells what differs, exit code 1 if anything does
    python tools/docs_blocks.py --write    # writes it

They stand in the pages themselves, so that the pages are whole on a code host too.
"""

from __future__ import annotations

import json
import sys

from made_blocks import ROOT, keep

from collab_jax.config import describe, list_shipped

__all__ = ["FILES", "blocks"]

FILES = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))]
_METHODS = ("out", "mid", "pull_push", "kernel", "out+mid+pull_push+kernel", "tree")


def blocks() -> dict[str, str]:
    """Every block by name."""
    programs = {
        f"file examples/{path.name}": f"```python\n{path.read_text(encoding='utf-8')}```"
        for path in sorted((ROOT / "examples").glob("*.py"))
    }
    return {
        "recipes": _recipes(),
        "keys": describe().rstrip(),
        "planned costs": _planned(),
        **programs,
    }


def _recipes() -> str:
    rows = [f"| `{name}` | {header} |" for name, header in list_shipped("recipe").items()]
    return "\n".join(["| recipe | what it trains |", "|---|---|", *rows])


def _planned() -> str:
    """FLOPs and peak memory of a step over baseline's, from the kept plan."""
    rows = json.loads((ROOT / "results" / "plan_h100.json").read_text())["rows"]
    found = {(row["model"], row["method"]): row for row in rows if not row["overrides"]}
    lines = [
        "| method | VGG-16: FLOPs | peak memory | ResNet-18: FLOPs | peak memory |",
        "|---|---:|---:|---:|---:|",
    ]
    for method in _METHODS:
        cells = [
            f"{found[model, method][name] / found[model, 'baseline'][name]:.2f}"
            for model in ("vgg16", "resnet18")
            for name in ("flops", "peak_bytes")
        ]
        lines.append(f"| {' | '.join([f'`{method}`', *cells])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(keep("What docs/ takes from the code.", FILES, blocks()))
