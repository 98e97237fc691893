"""Study files, the paper's cells, a study's folder, and estimates of time."""

import errno
import json
import re
import shutil
from collections import namedtuple
from importlib import resources

import numpy as np
import pytest
from test_configs import ERRORS

from collab_jax import config as config_lib
from collab_jax.config import list_shipped, parse, recipe
from collab_jax.errors import RunError, UserError
from collab_jax.study import Cell, Study, Table, load_study
from collab_jax.study import __main__ as program
from collab_jax.study import estimate as estimates
from collab_jax.study import folder as folders
from collab_jax.study.child import reason_of
from collab_jax.study.flops import run_flops
from collab_jax.study.state import State
from collab_jax.study.task import cell_run, study_runs

PAPER = json.loads(resources.files("collab_jax.study").joinpath("paper_results.json").read_text())
NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet32": "ImageNet32"}
NAMES |= {"stl10": "STL-10", "vgg16": "VGG-16", "resnet18": "ResNet-18"}

TINY = """
from collab_jax.study import Cell, Study, Table
def get_study():
    short = {"epochs": 2, "decay_epochs": (1,)}
    cells = (Cell("digits", "baseline", "digits_vgg16", overrides=short),)
    return Study("a study", (Table("a table", cells),), pictures=False)
"""


@pytest.fixture
def tiny(tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(TINY)
    return file


def refused(capsys, *arguments):
    """The one line that the program refuses with."""
    assert program.main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def canonical(method):
    order = ("out", "mid", "pull_push", "kernel")
    return "+".join(sorted(method.split("+"), key=lambda term: (*order, method).index(term)))


def cells_of_errors(datasets):
    for data in datasets:
        for model, values in PAPER["table1_2"][data].items():
            for column, value in zip(PAPER["columns"], values, strict=True):
                name = "baseline (2x)" if column == "baseline_2x" else canonical(column)
                yield f"{NAMES[data]}, {NAMES[model]}", name, value


def cells_of_combinations():
    table = PAPER["table3_cifar100"]
    for model in ("vgg16", "resnet18"):
        for method, value in zip(table["methods"], table[model], strict=True):
            yield f"CIFAR-100, {NAMES[model]}", method, value


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("table1", list(cells_of_errors(["cifar10", "cifar100"]))),
        ("table2", list(cells_of_errors(["imagenet32", "stl10"]))),
        ("table3", list(cells_of_combinations())),
    ],
)
def test_dry_runs_list_exactly_the_papers_cells(name, expected, tmp_path, capsys):
    out = tmp_path / "out"
    assert program.main(["--study", name, "--out", str(out), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    listed = re.findall(r"^│ (.+?) +│ (.+?) +│ +3 │", printed, re.MULTILINE)
    assert listed == [(row, column) for row, column, _ in expected]
    assert not out.exists(), "a dry run wrote something"
    table = load_study(name)[1].tables[0]
    assert [cell.paper for cell in table.cells] == [value for _, _, value in expected]
    for cell in table.cells:
        config = cell_run(cell, 0, tmp_path).config
        twice = cell.column == "baseline (2x)"
        assert config.method == ("baseline" if twice else cell.column)
        assert config.model.width == (2 if twice else 1)
        assert {"vgg16": "VGG-16", "resnet18": "ResNet-18"}[config.model.name] in cell.row
        data = {"imagenet_resized/32x32": "imagenet32"}.get(config.data.name, config.data.name)
        assert cell.row.startswith(NAMES[data] + ",")
        halved = twice and cell.row == "STL-10, ResNet-18"
        assert config.batch_size == (64 if halved else 256 if data == "imagenet32" else 128)


def test_the_published_numbers_are_those_of_the_recipes_headers():
    for name, text in ERRORS.items():
        data, _, model = name.partition("_")
        assert PAPER["table1_2"][data][model] == [float(error) for error in text.split()]


def test_the_figure_has_a_curve_for_each_of_the_papers(tmp_path):
    (table,) = load_study("fig2")[1].tables
    figure = PAPER["fig2_label_noise_cifar100_vgg16"]
    points = {(cell.column, cell.x) for cell in table.cells}
    assert points == {(curve, x) for curve in figure["curves"] for x in figure["levels"]}
    for cell in table.cells:
        assert cell_run(cell, 0, tmp_path).config.data.label_noise == cell.x
    assert "3.53" in table.note


def test_every_shipped_study_resolves_and_trains_nothing_twice(tmp_path):
    assert set(list_shipped("study")) >= {"table1", "table2", "table3", "fig2", "memory", "reduced"}
    for name in list_shipped("study"):
        runs = study_runs(load_study(name)[1], tmp_path)
        assert len({run.name for run in runs}) == len(runs) > 0
    reduced = study_runs(load_study("reduced")[1], tmp_path)
    trained = [run for run in reduced if run.config is not None]
    # Nine methods, and four of them at two more levels of noise, with five seeds.
    assert len(trained) == 5 * (9 + 4 * 2)
    assert [run.config.seed for run in trained] == sorted(run.config.seed for run in trained)


def test_a_part_of_a_study_is_named_by_run_table_row_or_column(tmp_path):
    study = load_study("evidence")[1]
    runs = {run.name for run in study_runs(study, tmp_path)}

    def part(text):
        found = [run.name for run in study_runs(study, tmp_path, text)]
        assert set(found) <= runs and len(set(found)) == len(found)
        return found

    assert len(runs) == 6 * (7 + 7 + 4)
    assert len(part("clean labels")) == len(part("people's")) == 6 * 7
    assert len(part("twice as long")) == 6 * 3
    assert len(part("seed-3")) == 18 and len(part("mid+pull_push+kernel/seed-")) == 6 * 2
    assert part("nothing of this name") == []
    # The first seed's pictures come with its runs.
    pictured = load_study("reduced")[1]
    noisy = study_runs(pictured, tmp_path, "noise 0.5")
    assert sum(run.after != "" for run in noisy) == 4 and len(noisy) == 5 * 4 + 4


@pytest.mark.slow
def test_equal_compute_is_equal_in_flops(tmp_path):
    cells = {cell.column: cell for cell in load_study("ablations")[1].tables[2].cells}
    flops = {name: run_flops(cell_run(cell, 0, tmp_path).config) for name, cell in cells.items()}
    for method in ("mid", "out+mid+pull_push"):
        assert flops[f"baseline for {method}'s FLOPs"] == pytest.approx(flops[method], rel=0.01)
    assert flops["mid"] / flops["baseline"] == pytest.approx(1.17, abs=0.01)


def test_flops_are_counted_for_any_data(tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 8, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", x_train=images, y_train=np.arange(40) % 4)
    tiny = {
        "data.name": str(tmp_path / "own.npz"),
        "data.test": 0.25,
        "batch_size": 10,
        "epochs": 2,
        "model.width": 0.0625,
        "model.classifier_width": 16,
    }
    counted = run_flops(parse(recipe("baseline", tiny)))
    assert counted > 0
    assert run_flops(parse(recipe("baseline", {**tiny, "epochs": 4}))) == 2 * counted
    assert run_flops(parse(recipe("baseline", {**tiny, "steps": 3}))) == counted / 2
    missing = {**tiny, "data.name": str(tmp_path / "no.npz")}
    assert run_flops(parse(recipe("baseline", missing))) is None


def test_equal_compute_with_noise_is_that_of_the_ablations(tmp_path):
    (table,) = load_study("noise_compute")[1].tables
    configs = {cell.column: cell_run(cell, 0, tmp_path).config for cell in table.cells}
    method = "out+mid+pull_push"
    longer = configs[f"baseline for {method}'s FLOPs"]
    assert (longer.epochs, longer.decay_epochs) == (152, (46, 91, 122))
    assert {config.data.label_noise for config in configs.values()} == {0.5}
    assert [pair[0] for pair in table.contrasts] == [method]
    clean = load_study("ablations")[1].tables[2].cells
    (same,) = [cell.overrides for cell in clean if cell.column == f"baseline for {method}'s FLOPs"]
    assert dict(same) == {"epochs": longer.epochs}


def test_ablations_change_one_key_at_a_time(tmp_path):
    tables = load_study("ablations")[1].tables
    for table, method in zip(tables, ("out", "mid"), strict=False):
        keys = [tuple(cell.overrides) for cell in table.cells if cell.method == method]
        assert sorted(map(len, keys)) == [0, 1, 1, 1]
    longer = {cell.column: cell_run(cell, 0, tmp_path).config for cell in tables[2].cells}
    baseline, equal = longer["baseline"], longer["baseline for mid's FLOPs"]
    assert equal.epochs / baseline.epochs == pytest.approx(1.17, abs=0.01)
    points = [config_lib.decay_points(config) for config in (equal, baseline)]
    ratios = [new / old for new, old in zip(*points, strict=True)]
    assert ratios == pytest.approx([1.17] * 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_study(:", "line 1: syntax error"),
        ("x = 1", "expected a function get_study()"),
        ("def get_study():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("def get_study(): return 5", "returned int, expected a collab_jax.study.Study"),
        (TINY.replace('"epochs"', '"epoch"'), "config.epoch: no such key; did you mean epochs"),
        (TINY.replace("digits_vgg16", "digit_vgg16"), "did you mean digits_vgg16"),
        (TINY.replace("cells),)", "cells * 2),)"), "two cells are 'digits / baseline'"),
        (
            TINY.replace("cells),)", "cells, contrasts=(('out', 'mid'),)),)"),
            "contrast 'out' with 'mid'",
        ),
        (TINY.replace("(Table(", "() and (Table("), "the study is empty"),
        (TINY.replace("pictures", "seeds=(1, 1), pictures"), "expected different whole numbers"),
    ],
)
def test_a_wrong_study_file_is_told_in_one_line(text, message, tmp_path, capsys):
    file = tmp_path / "wrong.py"
    file.write_text(text)
    line = refused(capsys, "--study", file, "--out", tmp_path / "out")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_names_and_values_of_flags_are_told(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    assert "did you mean table1" in refused(capsys, "--study", "tabel1", "--out", out)
    common = ("--study", tiny, "--out", out)
    assert "--jobs 0" in refused(capsys, *common, "--jobs", "0")
    assert "epochs changes results" in refused(capsys, *common, "--config.epochs=3")
    told = refused(capsys, *common, "--only", "tree")
    assert "--only tree: no name of a run, table, row or column holds it" in told
    assert "expected KEY=VALUE" in refused(capsys, *common, "--slurm", "partition")
    assert not out.exists()


def test_only_this_studys_folder_is_written(tiny, tmp_path, capsys):
    def content(folder):
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    out = tmp_path / "out"
    out.mkdir()
    for name, text, message in (
        ("notes.txt", "mine", "holds notes.txt and no study.json"),
        ("config.json", "{}", "is the directory of a run"),
        ("study.json", '{"format": 1, "name": "other"}', "holds the study 'other', not 'tiny'"),
    ):
        (out / name).write_text(text)
        before = content(out)
        assert message in refused(capsys, "--study", tiny, "--out", out)
        assert content(out) == before
        (out / name).unlink()
    assert "is a file" in refused(capsys, "--study", tiny, "--out", tiny)
    assert "--out /proc/study" in refused(capsys, "--study", tiny, "--out", "/proc/study")


def test_a_run_with_another_config_is_not_gone_on_with(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    (run,) = study_runs(load_study(str(tiny))[1], out)
    config = config_lib.replace(run.config, {"learning_rate": 0.3})
    (out / run.name).mkdir(parents=True)
    (out / run.name / "config.json").write_text(config_lib.to_json(config))
    (out / "study.json").write_text('{"format": 1, "name": "tiny"}')
    line = refused(capsys, "--study", tiny, "--out", out)
    assert "learning_rate = 0.3, not 0.05" in line and run.name in line


def test_no_room_on_the_disk_is_told_before_a_run_starts(tiny, tmp_path, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 0, 5 << 20))
    out = tmp_path / "out"
    assert program.main(["--study", str(tiny), "--out", str(out)]) == 1
    assert "5 MiB of its disk are free, expected 256 MiB" in capsys.readouterr().err
    assert not (out / "study.json").exists()

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders, "write_json", full)
    with pytest.raises(RunError, match="No space left on device"):
        folders.write_study(out, {})


def test_two_processes_do_not_run_one_study(tmp_path):
    with (
        folders.hold_folder(tmp_path / "out"),
        pytest.raises(UserError, match="the study is run by process"),
        folders.hold_folder(tmp_path / "out"),
    ):
        pass


def test_time_left_comes_from_like_runs(tmp_path):
    def run(seed, **overrides):
        return cell_run(Cell("r", "c", "digits_vgg16", overrides=overrides), seed, tmp_path)

    runs = {"a": run(0), "b": run(1), "c": run(2), "wide": run(0, **{"model.width": 1.0})}
    runs["noisy"] = run(0, **{"data.label_noise": 0.5})
    states = {
        "a": State("done", 30, 30, seconds=100.0),
        "b": State("done", 30, 30, seconds=200.0),
        "c": State("stopped", 12, 30),
        "wide": State("waiting", 0, 30),
        "noisy": State("waiting", 0, 30),
    }
    found = estimates.estimate(runs, states)
    assert found["a"].seconds == 0
    assert found["c"].seconds == pytest.approx(150 * (1 - 12 / 30))
    assert found["noisy"].seconds == pytest.approx(150), "noise does not change the time"
    assert found["wide"].seconds is None and found["wide"].basis == "unknown"
    assert estimates.spell(3900) == "1 h 05 min" and estimates.spell(200) == "3 min 20 s"


def test_the_reason_is_the_error_line_of_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("epoch 1\nerror: not finite at step 3\nbye\n")
    assert reason_of(log, 1) == "not finite at step 3"
    assert reason_of(log, 0) == ""
    assert reason_of(log, -9) == "killed by SIGKILL"
    assert reason_of(log, 128 + 15) == "killed by SIGTERM", "a second signal ends a run so"
    assert reason_of(log, 255) == "not finite at step 3"
    log.write_text("Traceback\nKeyError: 'x'\n")
    assert reason_of(log, 1) == "KeyError: 'x'"


def test_tables_of_curves_need_an_x(tmp_path):
    file = tmp_path / "curves.py"
    file.write_text(TINY.replace("cells),)", 'cells, x_label="noise"),)'))
    with pytest.raises(UserError, match="has no x, expected a number for the axis 'noise'"):
        load_study(str(file))
    assert Study("t", (Table("t", ()),)).seeds == (0,)
