"""The tables and words of the trained-out study, from made-up runs."""

import json
import shutil

import numpy as np
import pytest
from evidence_tables import blocks
from scipy import stats

SEEDS = (0, 1, 2, 3)
ROW = "clean labels"
# Error, likelihood and calibration by column and seed.
BASE = np.array([[56.0, 3.5, 46.0], [57.0, 3.6, 47.0], [55.0, 3.4, 45.0], [56.5, 3.7, 46.5]])
SHIFTS = {
    "baseline": 0 * BASE,
    "longer": np.array([[-0.2, 0.1, 0.0], [0.3, 0.0, 0.1], [0.1, 0.2, 0.3], [-0.1, 0.1, 0.2]]),
    "mid": np.array([[-3.04, 0.2, 1.0], [-3.2, 0.3, 1.1], [-2.9, 0.2, 0.9], [-3.3, 0.1, 1.2]]),
    "never run": None,
}


@pytest.fixture
def results(tmp_path):
    folder, cells = tmp_path / "cifar10", []
    for column, shift in SHIFTS.items():
        runs = []
        for seed in SEEDS:
            path = f"{column}/seed-{seed}"
            runs.append({"seed": seed, "path": path, "command": "python launch.py"})
            if shift is None:
                continue
            error, loss, calibration = BASE[seed] + shift[seed]
            line = {"step": 8, "epoch": 2, "split": "test", "top1_error": error}
            line |= {"loss": loss, "calibration_error": calibration}
            train = {"step": 8, "epoch": 2, "split": "train", "images_per_second": 100.0}
            (folder / path).mkdir(parents=True)
            text = "".join(f"{json.dumps(each)}\n" for each in (train, train, line))
            (folder / path / "metrics.jsonl").write_text(text)
            errors = {"last_test_error": error, "best_test_error": error}
            errors |= {"val_selected_test_error": error, "seconds": 1.0, "epochs": 2}
            (folder / path / "result.json").write_text(json.dumps(errors))
            config = {"batch_size": 50, "epochs": 2}
            (folder / path / "config.json").write_text(json.dumps(config))
        cell = {"row": ROW, "column": column, "x": None, "paper": None, "method": "baseline"}
        cells.append(cell | {"top5": False, "flops": 2.0 + (column == "mid"), "runs": runs})
    table = {"title": ROW, "baseline": "baseline", "x_label": "", "note": "", "cells": cells}
    table["contrasts"] = [["mid", "longer"], ["never run", "longer"]]
    study = {"format": 1, "collab_jax": "0.2.0", "name": "evidence", "title": "", "note": ""}
    study |= {"seeds": SEEDS, "threads": 1, "programs": [], "tables": [table]}
    (folder / "study.json").write_text(json.dumps(study))
    for name in ("cifar10_rate", "cifar10_exploratory", "cifar10_auxiliary"):
        shutil.copytree(folder, tmp_path / name)
    return tmp_path


def lines(block):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    return {tuple(row[:2]): row[2:] for row in rows[2:]}


def test_a_row_for_each_method_that_was_run(results):
    made = blocks(results)
    for name in ("trained out", "trained out short", "trained out likelihood"):
        assert set(lines(made[name])) == {(ROW, c) for c in ("baseline", "longer", "mid")}, name
    assert list(lines(made["trained out directly"])) == [(ROW, "mid")]


def test_differences_are_scipys(results):
    made = blocks(results)
    ours, theirs = (BASE + SHIFTS["mid"])[:, 0], BASE[:, 0]
    test = stats.ttest_rel(ours, theirs)
    low, high = test.confidence_interval(0.95)
    error, difference, p, _, flops, time = lines(made["trained out"])[ROW, "mid"]
    assert error.startswith(f"{ours.mean():.2f} ± {ours.std(ddof=1):.2f}")
    assert difference == f"**{(ours - theirs).mean():+.2f} [{low:+.2f}, {high:+.2f}]**"
    assert p == "<0.001 / <0.001 / 0.1250" and (flops, time) == ("1.50", "1.00")
    # Holm's p of the larger of two is its own, or that of the smaller doubled where that is more.
    first, second = (
        stats.ttest_rel((BASE + SHIFTS[name])[:, 1], BASE[:, 1]) for name in ("mid", "longer")
    )
    assert first.pvalue < second.pvalue
    holm = max(2 * first.pvalue, second.pvalue)
    low, high = second.confidence_interval(0.95)
    assert holm > 0.05
    told = lines(made["trained out likelihood"])[ROW, "longer"][1]
    assert told == f"+0.10 [{low:+.2f}, {high:+.2f}], {holm:.3f}"
    told = lines(made["trained out likelihood"])[ROW, "mid"][1]
    assert told.startswith("**+0.20 [") and told.endswith(f", {2 * first.pvalue:.3f}**")


def test_the_words_tell_what_stands(results):
    words = " ".join(blocks(results)["trained out claim"].split())
    assert f"With {ROW} better than baseline: mid by 3.1 points." in words
    assert f"With {ROW} no difference is shown for longer." in words
    assert "worse" not in words and "never run" not in words
    assert "mid minus longer: -3.1 points (" in words


def test_a_method_that_loses_is_told(results):
    for seed in SEEDS:
        path = results / "cifar10" / "mid" / f"seed-{seed}" / "result.json"
        found = json.loads(path.read_text())
        found["last_test_error"] = BASE[seed][0] + 2 + 0.1 * seed - 0.02
        path.write_text(json.dumps(found))
    words = " ".join(blocks(results)["trained out claim"].split())
    assert f"With {ROW} worse than baseline: mid by 2.1 points." in words
