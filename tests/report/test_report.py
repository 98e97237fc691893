"""The report: its numbers, what is missing, and that it loads nothing."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from collab_jax.report import __main__ as program
from collab_jax.report import read_folder, write_report
from collab_jax.report.blocks import Figure, Heading, Table, to_html, to_markdown
from collab_jax.report.statistics import paired_difference

OURS = {0: 20.0, 1: 21.5, 2: 19.25, 3: 22.0}
THEIRS = {0: 22.0, 1: 22.5, 2: 21.0, 3: 25.0}


def write_run(folder, path, *, done=True, error=0.0, epochs=4, seed=0, terms=("cross_entropy",)):
    run_dir = folder / path
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(json.dumps({"epochs": epochs}))
    lines = []
    for epoch in range(1, epochs + 1 if done else epochs - 1):
        train = {"loss": 1 / epoch, "top1_error": 50 / epoch, "images_per_second": 9.0}
        train |= {term: 2 / epoch for term in terms}
        lines.append({"step": epoch, "epoch": epoch, "split": "train", **train})
        lines.append({"step": epoch, "epoch": epoch, "split": "test", "top1_error": error + epoch})
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if done:
        result = {"last_test_error": error, "best_test_error": error - 1, "seed": seed}
        result |= {"val_selected_test_error": error + 0.5, "epochs": epochs, "seconds": 1.0}
        (run_dir / "result.json").write_text(json.dumps(result))


def cell(column, seeds, *, row="digits", x=None, paper=None):
    runs = [
        {
            "seed": s,
            "path": f"{row}/{column}/seed-{s}",
            "command": f"python launch.py {s} <{column}>",
        }
        for s in seeds
    ]
    return {"row": row, "column": column, "x": x, "paper": paper, "top5": False, "runs": runs}


def write_study(folder, tables, name="small"):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": 1, "name": name, "title": "A <small> study", "note": "", "tables": tables}
    (folder / "study.json").write_text(json.dumps({**content, "threads": 2, "programs": []}))


def table(cells, title="A table", x_label=""):
    return {"title": title, "baseline": "baseline", "x_label": x_label, "note": "", "cells": cells}


@pytest.fixture
def study(tmp_path):
    """Four seeds of baseline and mid, one run of out under way, kernel failed, tree not begun."""
    folder = tmp_path / "study"
    for seed in OURS:
        write_run(folder, f"digits/baseline/seed-{seed}", error=THEIRS[seed], seed=seed)
        path = f"digits/mid/seed-{seed}"
        write_run(folder, path, error=OURS[seed], seed=seed, terms=("cross_entropy", "mid"))
    write_run(folder, "digits/out/seed-0", done=False)
    (folder / "jobs").mkdir()
    outcome = {"exit_code": 1, "reason": "the disk is full"}
    (folder / "jobs" / "digits__kernel__seed-0.outcome.json").write_text(json.dumps(outcome))
    cells = [cell("baseline", range(4), paper=10.25), cell("mid", range(4), paper=9.5)]
    cells += [cell("out", range(4)), cell("kernel", [0]), cell("tree", [0])]
    write_study(folder, [table(cells)])
    return folder


def rows_of(markdown):
    """Cells of all Markdown tables, a list for each line."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def test_rivals_are_columns_like_any_other(tmp_path):
    folder = tmp_path / "study"
    for seed in OURS:
        write_run(folder, f"digits/baseline/seed-{seed}", error=THEIRS[seed], seed=seed)
        terms = ("cross_entropy", "predsim", "hsic")
        path = f"digits/predsim+hsic/seed-{seed}"
        write_run(folder, path, error=OURS[seed], seed=seed, terms=terms)
    cells = [cell("baseline", range(4)), cell("predsim+hsic", range(4))]
    write_study(folder, [table(cells)])
    write_report([folder], tmp_path / "report")
    rows = rows_of((tmp_path / "report" / "report.md").read_text())
    row = next(row for row in rows if row[:2] == ["digits", "predsim+hsic"])
    assert row[2] == "20.69 ± 1.28 (4)" and row[3].startswith("-1.94")


def test_likelihood_and_calibration_of_the_last_epoch_are_compared_where_they_were_logged(tmp_path):
    folder = tmp_path / "study"
    for seed in OURS:
        for column, worse in (("baseline", 0.4), ("mid", 0.1 * seed)):
            write_run(folder, f"digits/{column}/seed-{seed}", seed=seed)
            path = folder / f"digits/{column}/seed-{seed}/metrics.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for line in lines:
                if line["split"] == "test":
                    line |= {"loss": line["epoch"] + worse, "calibration_error": 10 * worse}
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    cells = [cell("baseline", range(4)), cell("mid", range(4))]
    write_study(folder, [table(cells) | {"contrasts": [["mid", "baseline"]]}])
    write_report([folder], tmp_path / "report")
    rows = rows_of((tmp_path / "report" / "report.md").read_text())
    row = next(row for row in rows if row[:3] == ["digits", "mid", "4.15 ± 0.13 (4)"])
    difference = paired_difference({s: 0.1 * s for s in OURS}, dict.fromkeys(OURS, 0.4))
    assert row[3].startswith(f"{difference.mean:+.2f}<br>[{difference.low:+.2f}, ")
    assert row[4] == "1.50 ± 1.29 (4)" and row[5].startswith("-2.50")
    contrast = next(row for row in rows if row[:3] == ["digits", "mid", "baseline"])
    assert contrast[6].startswith("-0.25") and contrast[7].startswith("-2.50")


@pytest.mark.smoke
def test_numbers_stand_beside_the_papers_and_missing_ones_are_visible(study, tmp_path):
    write_report([study], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    rows = rows_of(text)
    # By the paper's protocol: the lowest over epochs, one below the last in these runs.
    beside = next(row for row in rows if row[0] == "digits" and "paper" in row[1])
    assert beside[1] == "21.62 ± 1.70 (4)<br>paper 10.25"
    assert (
        beside[3:] == ["missing (0 of 4)<br>paper: none"] + ["missing (0 of 1)<br>paper: none"] * 2
    )
    mid = next(row for row in rows if row[:2] == ["digits", "mid"])
    test = stats.ttest_rel(list(OURS.values()), list(THEIRS.values()))
    interval = test.confidence_interval()
    # Of four differences with one sign two in sixteen are as far from zero.
    difference = (
        f"-1.94<br>[{interval.low:+.2f}, {interval.high:+.2f}]<br>p {test.pvalue:.3f}, "
        f"Holm {test.pvalue:.3f}<br>sign-flip p 0.1250<br>detectable 1.76<br>better (4)"
    )
    assert mid[2:] == ["20.69 ± 1.28 (4)", difference, "21.19 ± 1.28 (4)", difference,
                       "19.69 ± 1.28 (4)", difference, "9.50"]  # fmt: skip
    out = next(row for row in rows if row[:2] == ["digits", "out"])
    assert out[2:4] == ["missing (0 of 4)", "missing"]
    assert ["digits/out/seed-0", "at epoch 2 of 4"] in rows
    assert ["digits/kernel/seed-0", "failed: the disk is full"] in rows
    assert "Of 14 runs: 8 done, 1 failed, 1 unfinished, 4 not begun." in text
    assert "NPROC=2 python launch.py 3 <mid>" in text


class Page(HTMLParser):
    """Everything that a page would load, its images and its text."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.images, self.anchors, self.links, self.missing = [], 0, set(), [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert tag not in ("script", "iframe", "object", "embed", "base"), tag
        assert "http-equiv" not in values or values["http-equiv"] == "Content-Security-Policy"
        self.images += tag == "img" and bool(values.get("alt"))
        self.missing += values.get("class") == "missing"
        self.anchors.add(values.get("id"))
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            value = values.get(name)
            if value and value.startswith("#"):
                self.links.append(value[1:])
            elif value:
                self.loaded.append(value)


def test_the_page_loads_nothing_and_holds_its_figures(study, tmp_path):
    page_path = write_report([study], tmp_path / "report")
    text = page_path.read_text()
    page = Page(text)
    assert page.loaded and all(value.startswith("data:") for value in page.loaded)
    assert "url(" not in text and "@import" not in text and "<script" not in text
    assert "default-src 'none'" in text
    figures = sorted(path.name for path in (tmp_path / "report" / "figures").iterdir())
    assert page.images == len(figures) >= 3
    assert any(name.endswith("-terms.svg") for name in figures)
    assert page.missing >= 6 and set(page.links) <= page.anchors and page.links
    assert "A &lt;small&gt; study" in text and "&lt;mid&gt;" in text
    assert 'name="viewport"' in text and "@media (max-width" in text
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert all(f"(figures/{name})" in markdown for name in figures)
    again = write_report([study], tmp_path / "again")
    assert again.read_text() == text, "two reports of one study differ"


def test_figures_tell_lines_apart_without_colour(study):
    from collab_jax.report import figures

    styles = [figures._style(number) for number in range(9)]
    plain = [(str(style["linestyle"]), style["marker"]) for style in styles]
    assert len(set(plain)) == len(plain)
    thin = {(style["color"], str(style["linestyle"])) for style in styles}
    assert len(thin) == len(styles), "between two markers they look alike"
    assert all(
        style["color"] != other["color"] for style, other in zip(styles, styles[1:], strict=False)
    )
    data = read_folder(study)
    epochs, means, spreads = data.tables[0].at("digits", "mid").curve("top1_error", "test")
    expected = np.array([[error + epoch for error in OURS.values()] for epoch in range(1, 5)])
    np.testing.assert_array_equal(epochs, [1, 2, 3, 4])
    np.testing.assert_allclose(means, expected.mean(axis=1))
    np.testing.assert_allclose(spreads, expected.std(axis=1, ddof=1))


def test_the_second_half_of_training_is_drawn_once_more(study, monkeypatch):
    from collab_jax.report import figures

    drawn = []
    monkeypatch.setattr(figures, "_saved", lambda figure: drawn.append(figure))
    figures.learning_curves(read_folder(study).tables[0], "digits")
    axes = drawn[0].axes
    assert [axis.get_ylabel().split()[0] for axis in axes] == ["test", "train"] * 2
    for axis, expected in ((axes[0], [1, 2, 3, 4]), (axes[2], [2, 3, 4])):
        np.testing.assert_array_equal(axis.get_lines()[0].get_xdata(), expected)
        assert all(set(line.get_xdata()) <= set(expected) for line in axis.get_lines())
    assert axes[0].collections and not axes[2].collections, "bands hide the differences there"


def test_curves_over_noise_and_pictures_are_drawn_where_there_is_something(tmp_path):
    folder = tmp_path / "study"
    cells = []
    for level in (0.0, 0.5):
        for column in ("baseline", "out"):
            cells.append(cell(column, [0, 1], row=f"noise {level}", x=level))
    cells.append(cell("mid", [0], row="noise 0.5", x=0.5))
    write_study(folder, [table(cells, x_label="label noise")])
    for item in cells[:-1]:
        for run in item["runs"]:
            write_run(folder, run["path"], error=20 + 10 * item["x"], seed=run["seed"])
    rng = np.random.default_rng(0)
    values = {
        "labels": np.arange(6),
        "similarity_inputs": np.eye(6),
        "similarity_labels": np.eye(6),
    }
    for when in ("before", "after"):
        values[f"similarity_{when}"] = rng.uniform(-1, 1, (3, 6, 6)).astype(np.float16)
        values[f"filters_{when}"] = rng.uniform(-1, 1, (2, 4, 4))
        values[f"filter_correlation_{when}"] = np.array([0.25, 0.5])
    evaluated = folder / cells[1]["runs"][0]["path"] / "evaluation-last"
    evaluated.mkdir()
    np.savez(evaluated / "diagnostics.npz", **values)
    write_report([folder], tmp_path / "report")
    names = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
    assert {"table1-last.svg", "table1-best.svg", "table1-selected.svg"} <= names
    pictures = {name for name in names if name.endswith(".png")}
    assert pictures == {
        f"table1-1-noise-0-0-2-out-{kind}.png" for kind in ("similarities", "filters")
    }
    assert "table1-1-noise-0-0-separations.svg" in names
    assert "missing (0 of 1)" in (tmp_path / "report" / "report.md").read_text()


def test_the_baseline_may_stand_in_another_study_and_a_search_is_shown(tmp_path):
    for name, column, errors in (("one", "baseline", THEIRS), ("three", "mid", OURS)):
        write_study(tmp_path / name, [table([cell(column, range(4))], title=name)], name)
        for seed, error in errors.items():
            write_run(tmp_path / name, f"digits/{column}/seed-{seed}", error=error, seed=seed)
    trial = {"trial": 0, "kind": "grid", "state": "complete", "validation_error": 31.25}
    search = {"name": "found", "method": "mid", "recipe": "digits_vgg16", "seeds": [100]}
    search |= {
        "grid": {"mid.weight": [1]},
        "trials": [{**trial, "parameters": {"mid.weight": 1.0}}],
    }
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "search.json").write_text(json.dumps(search))
    folders = [str(tmp_path / name) for name in ("three", "one", "search")]
    assert program.main([*folders, "--out", str(tmp_path / "report")]) == 0
    rows = rows_of((tmp_path / "report" / "report.md").read_text())
    mid = next(row for row in rows if row[:2] == ["digits", "mid"])
    assert mid[3].startswith("-1.94<br>[") and mid[3].endswith("better (4)")
    assert ["0", "grid", "complete", "1", "31.25"] in rows


def test_planned_memory_stands_beside_the_papers(tmp_path):
    program_entry = {"name": "plan", "title": "Memory", "product": "plan.svg", "command": "plan it"}
    program_entry["paper"] = {"baseline": 8.77, "tree_4_heads": 13.16}
    content = {"format": 1, "name": "memory", "title": "Memory", "note": "", "tables": []}
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps({**content, "programs": [program_entry]}))
    write_report([folder], tmp_path / "report")
    assert "missing: plan.svg" in (tmp_path / "report" / "report.md").read_text()
    row = {"gpu": "rtx2080ti", "peak_bytes": 8_000_000_000}
    plan = [{**row, "method": "baseline"}, {**row, "method": "tree", "peak_bytes": 12_000_000_000}]
    (folder / "plan.json").write_text(json.dumps({"note": "planned", "rows": plan}))
    write_report([folder], tmp_path / "report")
    rows = rows_of((tmp_path / "report" / "report.md").read_text())
    assert ["tree", "rtx2080ti", "12.00", "1.500", "13.16", "1.501"] in rows


def test_what_is_no_study_or_cannot_be_written_is_refused(study, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "study.json").write_text('{"format": 2}')
    torn = {"nothing": {"format": 1}, "numbers": {"format": 1, "tables": 5, "programs": []}}
    for name, content in torn.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text(json.dumps(content))
    (tmp_path / "searched").mkdir()
    (tmp_path / "searched" / "search.json").write_text('{"name": "a", "method": 5}')
    for folder, out, message in (
        (tmp_path / "nothing", tmp_path / "r", "expected the file that a study writes"),
        (tmp_path / "numbers", tmp_path / "r", "expected the file that a study writes"),
        (tmp_path / "searched", tmp_path / "r", "method = 5, expected the file that a search"),
        (tmp_path / "empty", tmp_path / "r", "no study.json or search.json"),
        (tmp_path / "newer", tmp_path / "r", "format 2, expected 1"),
        (study, study / "study.json", "expected a folder that can be written"),
    ):
        assert program.main([str(folder), "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and message in line
    assert not (tmp_path / "r").exists()


def test_it_imports_no_jax(study, tmp_path):
    code = (
        "import sys; from collab_jax.report.__main__ import main; "
        f"main([{str(study)!r}, '--out', {str(tmp_path / 'r')!r}]); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "matplotlib" in loaded
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "orbax", "tensorflow"}


def test_a_heading_twice_gets_two_anchors():
    blocks = [Heading(1, "T"), Heading(2, "Same"), Heading(2, "Same")]
    page = Page(to_html(blocks))
    assert len(page.links) == len(set(page.links)) == 2
    block = Table(["a", "b"], [["x|y", "1\n2"]])
    assert "| x\\|y | 1<br>2 |" in to_markdown([block])
    assert "![d](figures/f.svg)" in to_markdown([Figure("f.svg", b"", "c", "d")])
