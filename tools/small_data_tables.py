"""The small-data study's tables and claims, written into README.md, results/README.md and docs.

Command:
    python tools/small_data_tables.py            # tells what differs, exit code 1 if anything does
    python tools/small_data_tables.py --write    # writes it

Whatever stands between `<!-- NAME -->` and `<!-- end of NAME -->` is made of the kept runs alone.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from made_blocks import ROOT, keep

from collab_jax.report.collect import CellData, RunData, StudyData, TableData, read_folder
from collab_jax.report.comparisons import contrasts, differences, spell_p
from collab_jax.report.costs import seconds
from collab_jax.report.statistics import Difference, summarise

__all__ = ["FILES", "blocks", "errors", "interval", "markdown", "wrapped"]

FILES = ("README.md", "results/README.md", "docs/worth.md")
STUDIES = ("reduced", "ablations", "noise_compute")
BEST = "out+mid+pull_push"
NAMES = {
    "1,000 images": "no noise",
    "noise 0.2": "label noise .2",
    "noise 0.5": "label noise .5",
    "equal compute": "no noise",
    "baseline (2x)": "baseline, twice as wide",
    "tree (4 heads)": "tree, 4 heads",
}
PROTOCOLS = ("last", "selected")
P_VALUES = "p / Holm / sign-flip"


def _study(name: str, results: Path) -> StudyData:
    study = read_folder(results / name)
    assert isinstance(study, StudyData)
    return study


def _name(text: str) -> str:
    return NAMES.get(text, text)


def errors(cell: CellData, protocol: str) -> str:
    found = summarise(list(cell.errors(protocol).values()))
    if found.mean is None:
        return "not run"
    count = f" ({found.n} of {len(cell.runs)})" if found.n < len(cell.runs) else ""
    spread = f" ± {found.sd:.2f}" if found.sd is not None else ""
    return f"{found.mean:.2f}{spread}{count}"


def interval(found: Difference | None) -> list[str]:
    """Difference with its interval, then the three p-values and the detectable difference."""
    if found is None or found.mean is None:
        return ["", "", ""]
    if found.low is None or found.p is None:
        return [f"{found.mean:+.2f}", "", ""]
    text = f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    if found.verdict in ("better", "worse"):
        text = f"**{text}**"
    adjusted = found.p if found.adjusted is None else found.adjusted
    p = f"{spell_p(found.p)} / {spell_p(adjusted)} / {found.exact:.4f}"
    return [text, p, f"{found.detectable:.2f}"]


def markdown(header: list[str], rows: list[list[str]], first: int) -> str:
    rule = ["---"] * first + ["---:"] * (len(header) - first)
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def _methods(study: StudyData) -> TableData:
    """Both tables of the study as one: every run once, Holm's method over all differences."""
    clean, noise = study.tables
    noisy = tuple(cell for cell in noise.cells if cell.x)
    return replace(clean, cells=(*clean.cells, *noisy))


def _methods_table(table: TableData) -> str:
    columns = [differences(table, protocol) for protocol in PROTOCOLS]
    rows = []
    for place, cell in enumerate(table.cells):
        texts = [_name(cell.row), _name(cell.column)]
        for protocol, found in zip(PROTOCOLS, columns, strict=True):
            texts += [errors(cell, protocol), *interval(found[place])[:2]]
        texts.insert(5, interval(columns[0][place])[2])
        rows.append(texts)
    header = ["row", "method", "last epoch", "difference", P_VALUES, "detectable"]
    header += ["chosen by validation", "difference", P_VALUES]
    return markdown(header, rows, 2)


def _variants_table(ablations: StudyData) -> str:
    rows = []
    for table in ablations.tables:
        for cell, found in zip(table.cells, differences(table, "last"), strict=True):
            if found is not None and cell.row != "equal compute" and cell.column != "baseline":
                run = [_name(cell.row), cell.column, errors(cell, "last")]
                rows.append([*run, *interval(found), table.baseline])
    header = ["term", "run", "test error", "difference", P_VALUES, "detectable"]
    return markdown([*header, "to"], rows, 2)


def _compute_tables(ablations: StudyData, noise: StudyData) -> list[TableData]:
    return [ablations.tables[-1], noise.tables[0]]


def _compute_table(tables: list[TableData]) -> str:
    """Baselines of equal compute beside the method whose compute they have."""
    rows = []
    for table in tables:
        for ours, other, found in contrasts(table, "last"):
            base = table.at(ours.row, table.baseline)
            assert base is not None
            rows.append(
                [
                    _name(ours.row),
                    ours.column,
                    errors(ours, "last"),
                    other.column,
                    errors(other, "last"),
                    *interval(found),
                ]
            )
    header = ["row", "method", "its error", "beside", "its error", "method minus baseline"]
    return markdown([*header, P_VALUES, "detectable"], rows, 2)


def _costs_table(tables: list[TableData]) -> str:
    rows = []
    for table in tables:
        for cell in table.cells:
            base = table.at(cell.row, table.baseline)
            assert base is not None
            epochs = cell.runs[0].config.get("epochs")
            ours, theirs = seconds(cell), seconds(base)
            counted = f"{cell.flops / base.flops:.2f}" if cell.flops and base.flops else ""
            measured = f"{ours / theirs:.2f}" if ours and theirs else ""
            rows.append([_name(cell.row), cell.column, str(epochs or ""), counted, measured])
    header = ["row", "run", "epochs", "FLOPs / baseline's", "time / baseline's"]
    return markdown(header, rows, 2)


def _ties(studies: list[StudyData]) -> tuple[int, int]:
    """Runs in which several epochs share the lowest validation error, and all runs."""
    runs: dict[str, RunData] = {}
    for study in studies:
        for run in study.runs:
            if run.result is not None and run.lowest_validation(top5=False):
                # A run that a study copied from another has the same path in both.
                runs[run.path] = run
    tied = [run for run in runs.values() if len(run.lowest_validation(top5=False)) > 1]
    return len(tied), len(runs)


def _standing(found: Difference) -> str:
    """A contrast of the combination with a baseline, in words."""
    if found.low is None or found.adjusted is None:
        return "one seed, which tells nothing"
    words = {
        "better": "the combination is better",
        "worse": "the combination is worse",
        "unclear": f"no difference is shown, and one below {found.detectable:.1f} could not be",
    }
    return (
        f"{words.get(found.verdict, found.verdict)} (combination minus baseline {found.mean:+.1f}, "
        f"95% interval {found.low:+.1f} to {found.high:+.1f}, Holm's p {spell_p(found.adjusted)})"
    )


def _mean(cell: CellData | None) -> float:
    assert cell is not None
    mean = summarise(list(cell.errors("last").values())).mean
    assert mean is not None
    return mean


def _claim(methods: TableData, compute: list[TableData]) -> str:
    """What README may say of label noise and of equal compute."""
    found = {
        (cell.row, cell.column): difference
        for cell, difference in zip(methods.cells, differences(methods, "last"), strict=True)
        if difference is not None
    }
    clear = [
        f"{_name(column)} at {_name(row)}"
        for (row, column), difference in found.items()
        if difference.verdict in ("better", "worse")
    ]
    alone = found["noise 0.5", BEST]
    assert alone.p is not None and alone.adjusted is not None
    ours, base = (_mean(methods.at("noise 0.5", name)) for name in (BEST, "baseline"))
    clean, noisy = compute
    combination, baseline = (clean.at("equal compute", name) for name in (BEST, "baseline"))
    assert combination and baseline and combination.flops and baseline.flops
    times = seconds(combination), seconds(baseline)
    assert times[0] and times[1]
    texts = [
        f"After 100 epochs each, {len(clear) or 'none'} of {len(found)} differences to baseline "
        f"stands after Holm's correction{': ' * bool(clear)}{', '.join(clear)}. With label noise "
        f".5 the paper's combination ends at {ours:.1f}% test error where baseline has {base:.1f}% "
        f"(95% interval of the difference {alone.low:+.1f} to {alone.high:+.1f}; p "
        f"{spell_p(alone.p)} alone, {spell_p(alone.adjusted)} by Holm). But its 100 epochs cost "
        f"{combination.flops / baseline.flops:.1f} times baseline's FLOPs and "
        f"{times[0] / times[1]:.1f} times its time."
    ]
    for label, table in (("On clean labels", clean), ("With noise .5", noisy)):
        for cell, other, difference in contrasts(table, "last"):
            if cell.column != BEST:
                continue
            measure = other.column.rpartition(" ")[2]
            if difference.n == 0:
                texts.append(f"{label} a baseline of as much {measure} has not been run.")
                continue
            seeds = f" ({difference.n} of {len(cell.runs)} seeds)"
            texts.append(
                f"{label} a baseline that trains for the combination's {measure} ends at "
                f"{_mean(other):.1f}%{seeds * (difference.n < len(cell.runs))}: "
                f"{_standing(difference)}."
            )
    return " ".join(texts)


def blocks(results: Path) -> dict[str, str]:
    """Every block by name, from the kept runs.

    Args:
      results: the folder that holds the studies' folders.
    """
    reduced, ablations, noise = studies = [_study(name, results) for name in STUDIES]
    methods, compute = _methods(reduced), _compute_tables(ablations, noise)
    tied, runs = _ties(studies)
    return {
        "methods": _methods_table(methods),
        "variants": _variants_table(ablations),
        "equal compute": _compute_table(compute),
        "compute": _costs_table(compute),
        "ties": f"In {tied} of {runs} runs several epochs share the lowest validation error.",
        "claim": wrapped(_claim(methods, compute)),
    }


def wrapped(text: str, width: int = 104) -> str:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


if __name__ == "__main__":
    sys.exit(keep("Tables and claims of the small-data study.", FILES, blocks(ROOT / "results")))
