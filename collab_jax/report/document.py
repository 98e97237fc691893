"""What the report says, as blocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from collab_jax.report import figures
from collab_jax.report.blocks import Block, Code, Figure, Heading, Table, Text
from collab_jax.report.collect import (
    MEASURES,
    PROTOCOLS,
    CellData,
    SearchData,
    StudyData,
    TableData,
)
from collab_jax.report.comparisons import contrast_blocks, differences, has_measure, spell
from collab_jax.report.costs import cost_blocks
from collab_jax.report.programs import program_blocks
from collab_jax.report.statistics import Summary, summarise

__all__ = ["document"]

_READING = (
    "Errors are test errors in %, as mean ± sample standard deviation over seeds. “Last epoch” "
    "looks at nothing but the end of training; “chosen by validation” is the test error at the "
    "epoch with the lowest error on a split held out of the training images, the latest of several "
    "such epochs; “lowest over epochs” is the paper's protocol, which lets the test split choose "
    "and is optimistic. Differences are paired by seed (same initial backbone, order of the data "
    "and augmentation), with a 95% t-interval, which stands by itself, and below it four lines: p "
    "of the paired t-test, alone and by Holm's method over the differences of the table in that "
    "column; the exact p if each difference may have either sign, which assumes no distribution "
    "and is 0.0625 at the least of five seeds; the difference that as many seeds of this spread "
    "would find with 80% power. “Better” or “worse”, and a filled point, mean that Holm's p is "
    "below 0.05; “unclear” does not mean equal: a difference below the detectable one may well be "
    "there. Fewer than three seeds give no verdict."
)


def document(studies: Sequence[StudyData], searches: Sequence[SearchData] = ()) -> list[Block]:
    """The report of one or more studies.

    Args:
      studies: as `read_folder` gave them.
      searches: for the weights that the studies use.

    Returns:
      Its blocks, the title first.
    """
    blocks: list[Block] = [Heading(1, " and ".join(study.title for study in studies))]
    blocks += [Text(study.note) for study in studies if study.note]
    if any(study.tables for study in studies):
        blocks += [Text(_READING)]
    blocks += _states(studies)
    tables = [table for study in studies for table in study.tables]
    drawn: set[str] = set()
    for number, table in enumerate(tables, start=1):
        blocks += _table(table, tables, f"table{number}", drawn)
    for study in studies:
        for program in study.programs:
            blocks += program_blocks(program, study.folder)
    for search in searches:
        blocks += _search(search)
    blocks += _commands(studies)
    return blocks


def _states(studies: Sequence[StudyData]) -> Iterator[Block]:
    runs = [run for study in studies for run in study.runs]
    if not runs:
        return
    counts = Counter(run.state.partition(":")[0].partition(" epoch")[0] for run in runs)
    names = {"done": "done", "failed": "failed", "at": "unfinished", "not begun": "not begun"}
    names |= {"unreadable": "unreadable"}
    text = ", ".join(f"{counts[key]} {name}" for key, name in names.items() if counts[key])
    yield Text(f"Of {len(runs)} runs: {text}.")
    told = {
        run.path: [run.state] * (run.state not in ("done", "not begun", "unreadable"))
        + run.problems
        for run in runs
    }
    open_runs = [[path, "\n".join(texts)] for path, texts in told.items() if texts]
    if open_runs:
        yield Table(["run", "state"], open_runs, first=2)


def _table(
    table: TableData, tables: Sequence[TableData], name: str, drawn: set[str]
) -> Iterator[Block]:
    yield Heading(2, table.title)
    if table.note:
        yield Text(table.note)
    if any(cell.paper is not None for cell in table.cells):
        yield Heading(3, "Beside the paper's numbers")
        yield Text(
            "Ours by the paper's protocol, the lowest test error over all epochs; below it the "
            "paper's single run."
        )
        yield _grid(table, "best", with_paper=True)
    yield Heading(3, "After the last epoch")
    yield _grid(table, "last", with_paper=False)
    yield Heading(3, "Three protocols side by side")
    yield from _validation(table)
    yield _protocols(table, tables)
    yield from _measures(table, tables)
    yield from contrast_blocks(table)
    yield from cost_blocks(table)
    yield from _figures(table, name, drawn)


def _spelled(summary: Summary, asked: int) -> str:
    if summary.mean is None:
        return f"missing (0 of {asked})"
    spread = f" ± {summary.sd:.2f}" if summary.sd is not None else ""
    count = f" ({summary.n} of {asked})" if summary.n < asked else f" ({summary.n})"
    return f"{summary.mean:.2f}{spread}{count}"


def _errors(cell: CellData, protocol: str) -> Summary:
    return summarise(list(cell.errors(protocol).values()))


def _grid(table: TableData, protocol: str, *, with_paper: bool) -> Table:
    rows = []
    for row in table.rows:
        texts = [row]
        for column in table.columns:
            cell = table.at(row, column)
            if cell is None:
                texts.append("")
                continue
            text = _spelled(_errors(cell, protocol), len(cell.runs))
            if with_paper:
                text += f"\npaper {cell.paper:.2f}" if cell.paper is not None else "\npaper: none"
            texts.append(text)
        rows.append(texts)
    return Table(["", *table.columns], rows)


def _validation(table: TableData) -> Iterator[Block]:
    """What chose the epoch: how large the split is, how clean its labels, how many epochs tied."""
    runs = {run.path: (run, cell.top5) for cell in table.cells for run in cell.runs}
    lowest = [run.lowest_validation(top5) for run, top5 in runs.values()]
    chosen = [lines for lines in lowest if lines]
    if not chosen:
        return
    data = [run.config.get("data") or {} for run, _ in runs.values()]
    sizes = {(d.get("validation") or 0, d.get("train_examples") or 0) for d in data}
    texts = [_split_size(*size) for size in sorted(sizes) if size[0]]
    noisy = any(d.get("label_noise") for d in data)
    ties = sum(len(lines) > 1 for lines in chosen)
    yield Text(
        f"Validation: {'; '.join(texts) or 'size not recorded'}."
        + " Its labels stay clean where those of the training are noisy: what it chooses has seen "
        "labels that a user with noisy labels alone does not have."
        * noisy
        + f" In {ties} of {len(chosen)} runs several epochs share the lowest validation error; the "
        "latest of them is taken."
    )


def _split_size(held_out: float, train_examples: int) -> str:
    beside = f"{train_examples:,}" if train_examples else "all other"
    if held_out < 1:
        return f"{held_out:.0%} of the training split, beside {beside} training images"
    share = f" ({held_out / train_examples:.2f} of their number)" if train_examples else ""
    return f"{held_out:,.0f} images, beside {beside} training images{share}"


def _protocols(table: TableData, tables: Sequence[TableData]) -> Table:
    header = ["row", "column"]
    for _, title in PROTOCOLS.values():
        header += [title, f"difference to {table.baseline}"]
    published = any(cell.paper is not None for cell in table.cells)
    header += ["paper"] * published
    rows = []
    found = {protocol: differences(table, protocol, tables) for protocol in PROTOCOLS}
    for place, cell in enumerate(table.cells):
        texts = [cell.row, cell.column]
        for protocol in PROTOCOLS:
            errors = cell.errors(protocol)
            none_at_all = protocol == "selected" and not errors and cell.errors("last")
            texts.append(
                "no validation split"
                if none_at_all
                else _spelled(_errors(cell, protocol), len(cell.runs))
            )
            difference = found[protocol][place]
            texts.append("" if difference is None or none_at_all else spell(difference))
        texts += ["" if cell.paper is None else f"{cell.paper:.2f}"] * published
        rows.append(texts)
    return Table(header, rows, first=2)


def _measures(table: TableData, tables: Sequence[TableData]) -> Iterator[Block]:
    """What else the last epoch's test predictions are judged by."""
    names = [name for name in MEASURES if has_measure(table, name)]
    if not names:
        return
    yield Heading(3, "Likelihood and calibration of the last epoch's test predictions")
    header = ["row", "column"]
    for name in names:
        header += [MEASURES[name], f"difference to {table.baseline}"]
    found = {name: differences(table, name, tables) for name in names}
    rows = []
    for place, cell in enumerate(table.cells):
        texts = [cell.row, cell.column]
        for name in names:
            texts.append(_spelled(summarise(list(cell.values(name).values())), len(cell.runs)))
            difference = found[name][place]
            texts.append("" if difference is None else spell(difference))
        rows.append(texts)
    yield Table(header, rows, first=2)


def _figures(table: TableData, name: str, drawn: set[str]) -> Iterator[Block]:
    content = figures.differences(table, "last")
    if content is not None:
        caption = f"Paired differences to {table.baseline} after the last epoch, 95% intervals."
        yield Figure(f"{name}-differences.svg", content, caption, caption)
    if table.x_label:
        for protocol, (_, title) in PROTOCOLS.items():
            content = figures.curves_over_x(table, protocol)
            if content is not None:
                caption = f"Test error over {table.x_label}, {title}; bars: standard deviation."
                yield Figure(
                    f"{name}-{protocol}.svg", content, caption, caption, folded=protocol != "last"
                )
    for number, row in enumerate(table.rows, start=1):
        part = f"{name}-{number}-{_slug(row)}"
        for kind, draw, caption in (
            ("curves", figures.learning_curves, "Learning curves"),
            ("terms", figures.terms, "Terms over training, unweighted"),
        ):
            content = draw(table, row)
            if content is not None:
                text = f"{caption}: {row}."
                yield Figure(f"{part}-{kind}.svg", content, text, text, folded=number > 1)
        yield from _pictures(table, row, part, drawn, folded=number > 1)


def _pictures(
    table: TableData, row: str, part: str, drawn: set[str], *, folded: bool
) -> Iterator[Block]:
    cells = [cell for cell in table.cells if cell.row == row]
    content = figures.separations(cells)
    if content is not None:
        caption = (
            "Distance of each layer's similarity matrix to the labels' and to the inputs' after "
            f"training (Frobenius norm over the number of images): {row}."
        )
        yield Figure(f"{part}-separations.svg", content, caption, caption, folded=folded)
    for number, cell in enumerate(cells, start=1):
        # A run that stands in two tables is shown in the first.
        found = None if cell.runs[0].path in drawn else figures.pictures(cell)
        if found is None:
            continue
        drawn.add(cell.runs[0].path)
        similarities, filters = found
        label = f"{row}, {cell.column}"
        caption = (
            f"Similarity matrices of inputs, labels and layers before and after training: {label}; "
            "images sorted by class."
        )
        name = f"{part}-{number}-{_slug(cell.column)}"
        yield Figure(f"{name}-similarities.png", similarities, caption, caption, folded=True)
        caption = (
            f"Absolute correlation of filters before and after training: {label}; above each the "
            "root mean square off the diagonal."
        )
        yield Figure(f"{name}-filters.png", filters, caption, caption, folded=True)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


def _search(search: SearchData) -> Iterator[Block]:
    content: Mapping[str, Any] = search.content
    trials = content["trials"]
    yield Heading(2, f"Search {search.name}")
    yield Text(
        f"{content['method']} of {content['recipe']}: {len(trials)} trials, each the validation "
        f"error after the last epoch, mean over {len(content['seeds'])} seed(s). The test split "
        "was not looked at."
    )
    keys = list(content["grid"])
    done = sorted(
        trials, key=lambda t: (t["validation_error"] is None, t["validation_error"] or 0.0)
    )
    rows = [
        [
            str(trial["trial"]),
            trial["kind"],
            trial["state"],
            *(
                f"{trial['parameters'][key]:.4g}" if key in trial["parameters"] else ""
                for key in keys
            ),
            "" if trial["validation_error"] is None else f"{trial['validation_error']:.2f}",
        ]
        for trial in done
    ]
    yield Table(["trial", "from", "state", *keys, "validation error"], rows, first=3)


def _commands(studies: Sequence[StudyData]) -> Iterator[Block]:
    if not any(study.runs for study in studies):
        return
    yield Heading(2, "Commands")
    yield Text("Each run alone, in the order of the tables; --workdir chooses where it goes.")
    for study in studies:
        yield Code("\n".join(run.command for run in study.runs))
