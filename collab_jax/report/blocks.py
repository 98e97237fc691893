"""A report as a list of blocks, written as one HTML page and as Markdown."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Block", "Code", "Figure", "Heading", "Table", "Text", "to_html", "to_markdown"]


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Commands, a line each."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; `first` columns at the left are text, the others are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    first: int = 1


@dataclass(frozen=True)
class Figure:
    """A figure: its file's name with the ending svg or png, its bytes, caption and description."""

    name: str
    content: bytes
    caption: str
    description: str
    folded: bool = False


Block = Heading | Text | Code | Table | Figure

_STYLE = """
:root { color-scheme: light; --line: #c8c8c8; --soft: #f4f4f2; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.25rem 4rem; max-width: 90rem; background: #fff;
  color: #1a1a1a; font: 1rem/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.2; text-wrap: balance; }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p, figcaption { max-width: 46rem; }
a { color: #0b5394; }
nav ul { columns: 20rem; padding-left: 1.2rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
.scroll:focus-visible { outline: 2px solid #0b5394; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid var(--line); padding: .3rem .55rem; text-align: right;
  vertical-align: top; white-space: pre; }
th { white-space: pre-line; }
th { background: var(--soft); font-weight: 600; }
td.text, th.text { text-align: left; min-width: 7rem; white-space: pre-line; }
td.missing { background: repeating-linear-gradient(45deg, #fff 0 6px, #e8e8e8 6px 12px);
  font-style: italic; }
figure { margin: 1.25rem 0; }
figure img { max-width: 100%; height: auto; }
figure.wide .scroll img { max-width: none; width: 70rem; }
figcaption { font-size: .9rem; color: #444; }
summary { cursor: pointer; font-weight: 600; padding: .4rem 0; }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; font-size: .85rem; }
@media (max-width: 40rem) {
  body { padding: .75rem .75rem 3rem; font-size: .95rem; }
  table { font-size: .8rem; }
  th, td { padding: .2rem .35rem; }
  figure img { max-width: none; width: 34rem; }
  figure.wide .scroll img { width: 50rem; }
}
@media print { body { max-width: none; } details { display: block; } }
"""


def to_html(blocks: Sequence[Block]) -> str:
    """One page that holds everything and loads nothing."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    anchors = _anchors(blocks)
    body: list[str] = []
    for index, block in enumerate(blocks):
        body.append(_html(block, anchors.get(index, "")))
        if isinstance(block, Heading) and block.level == 1:
            body.append(_contents(blocks, anchors))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing may be asked of another place, not even a site's icon.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _anchors(blocks: Sequence[Block]) -> dict[int, str]:
    found: dict[int, str] = {}
    for index, block in enumerate(blocks):
        if isinstance(block, Heading):
            name = re.sub(r"[^a-z0-9]+", "-", block.text.lower()).strip("-")
            found[index] = name if name not in found.values() else f"{name}-{index}"
    return found


def _contents(blocks: Sequence[Block], anchors: dict[int, str]) -> str:
    items = [
        f'<li><a href="#{anchors[index]}">{html.escape(block.text)}</a></li>'
        for index, block in enumerate(blocks)
        if isinstance(block, Heading) and block.level == 2
    ]
    return f'<nav aria-label="Contents"><ul>{"".join(items)}</ul></nav>'


def _html(block: Block, anchor: str) -> str:
    if isinstance(block, Heading):
        level = min(block.level, 4)
        return f'<h{level} id="{anchor}">{html.escape(block.text)}</h{level}>'
    if isinstance(block, Text):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Code):
        return f'<pre tabindex="0"><code>{html.escape(block.text)}</code></pre>'
    if isinstance(block, Table):
        return _html_table(block)
    return _html_figure(block)


def _html_table(table: Table) -> str:
    def cell(tag: str, index: int, text: str) -> str:
        kind = "text" if index < table.first else "missing" if text.startswith("missing") else ""
        scope = ' scope="col"' if tag == "th" else ""
        mark = f' class="{kind}"' if kind else ""
        return f"<{tag}{mark}{scope}>{html.escape(text)}</{tag}>"

    head = "".join(cell("th", index, text) for index, text in enumerate(table.header))
    rows = "\n".join(
        "<tr>" + "".join(cell("td", index, text) for index, text in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _html_figure(figure: Figure) -> str:
    kind = "svg+xml" if figure.name.endswith(".svg") else "png"
    data = base64.b64encode(figure.content).decode()
    image = f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(figure.description)}">'
    wide = ' class="wide"' if kind == "png" else ""
    caption = html.escape(figure.caption)
    inner = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">{image}</div>'
        f"<figcaption>{caption}</figcaption>"
    )
    shown = f"<figure{wide}>{inner}</figure>"
    if figure.folded:
        return f"<details><summary>{caption}</summary>{shown}</details>"
    return shown


def to_markdown(blocks: Sequence[Block], figures: str = "figures") -> str:
    """Markdown that refers to figures as files of the folder `figures`."""
    return "\n\n".join(_markdown(block, figures) for block in blocks) + "\n"


def _markdown(block: Block, figures: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Code):
        return f"```sh\n{block.text}\n```"
    if isinstance(block, Figure):
        return f"![{block.description}]({figures}/{block.name})\n\n{block.caption}"

    def line(cells: Sequence[str]) -> str:
        texts = (cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells)
        return f"| {' | '.join(texts)} |"

    rule = ["---" if index < block.first else "---:" for index in range(len(block.header))]
    return "\n".join([line(block.header), f"|{'|'.join(rule)}|", *map(line, block.rows)])
