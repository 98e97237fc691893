"""Errors on corrupted images: the corruptions themselves, and the table of a study's runs."""

import json

import numpy as np
import pytest
from checkpoint_tables import main, markdown
from corruptions import CORRUPTIONS, corrupt, errors
from tiny import tiny_config

from collab_jax.runs import loop

IMAGES = np.random.default_rng(0).integers(60, 180, (8, 12, 12, 3)).astype(np.uint8)


def test_none_changes_nothing_and_every_other_does():
    for name in CORRUPTIONS:
        changed = corrupt(IMAGES, name)
        assert changed.shape == IMAGES.shape and changed.dtype == np.uint8
        assert np.array_equal(changed, IMAGES) == (name == "none"), name
        assert np.array_equal(changed, corrupt(IMAGES, name)), name


def test_the_strength_of_each():
    plain = IMAGES.astype(float)
    noise = corrupt(IMAGES, "noise") - plain
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.05) and abs(noise.mean()) < 1
    assert (corrupt(IMAGES, "brightness") - plain).mean() == pytest.approx(0.15 * 255, abs=0.3)
    contrast = corrupt(IMAGES, "contrast").astype(float)
    assert contrast.std(axis=(1, 2)) == pytest.approx(0.4 * plain.std(axis=(1, 2)), rel=0.05)
    assert contrast.mean(axis=(1, 2)) == pytest.approx(plain.mean(axis=(1, 2)), abs=0.3)


def test_a_blur_mixes_pixels_and_neither_channels_nor_images():
    point = np.zeros((2, 9, 9, 3), np.uint8)
    point[0, 4, 4, 1] = 255
    blurred = corrupt(point, "blur")
    assert not blurred[1].any() and not blurred[0, :, :, [0, 2]].any()
    assert int(blurred[0, :, :, 1].sum()) == pytest.approx(255, abs=5)
    # A Gaussian's ratio of a pixel to its neighbour, exp(1 / (2 sd^2)).
    middle = blurred[0, 4, :, 1].astype(float)
    assert middle[4] / middle[5] == pytest.approx(np.exp(1 / (2 * 0.7**2)), rel=0.03)


def test_values_beyond_the_range_are_cut():
    white, black = np.full((1, 4, 4, 3), 250, np.uint8), np.zeros((1, 4, 4, 3), np.uint8)
    assert (corrupt(white, "brightness") == 255).all()
    assert corrupt(black, "noise").min() == 0 and corrupt(black, "noise").max() < 120


def test_the_table_pairs_seeds():
    def runs(shift):
        return {n: {0: 10.0 + shift, 1: 20.0 + shift, 2: 31.0 + 2 * shift} for n in CORRUPTIONS}

    found = {("r", "baseline"): runs(0), ("r", "out"): runs(-3)}
    lines = markdown({"title": "T", "baseline": "baseline"}, found)
    assert lines[0] == "## T"
    assert lines[4] == "| r | baseline (3) |" + " 20.33 |" * len(CORRUPTIONS)
    # Differences of -3, -3, -6: a mean of -4 with an error of 1, and t(.975, 2) = 4.303.
    assert lines[5].count("16.33<br>-4.00 [-8.30, +0.30]<br>p 0.057, Holm 0.286") == 5


def test_a_runs_error_on_clean_images_is_the_one_that_it_logged(tmp_path):
    result = loop.run(tiny_config("baseline", epochs=3, learning_rate=0.05), tmp_path / "run")
    tests = {}
    found = errors(tmp_path / "run", tests)
    assert list(found) == list(CORRUPTIONS)
    assert found["none"] == pytest.approx(result["last_test_error"])
    assert len(set(found.values())) > 1
    (images,) = tests.values()
    assert errors(tmp_path / "run", tests) == found and list(tests.values())[0] is images


def test_a_study_without_checkpoints_is_told(tmp_path, monkeypatch, capsys):
    run = {"seed": 0, "path": "baseline/seed-0"}
    cell = {"row": "r", "column": "baseline", "runs": [run]}
    table = {"title": "T", "baseline": "baseline", "cells": [cell]}
    (tmp_path / "study.json").write_text(json.dumps({"tables": [table]}))
    (tmp_path / run["path"]).mkdir(parents=True)
    (tmp_path / run["path"] / "result.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["corruptions.py", str(tmp_path)])
    assert main("Told.", lambda path: errors(path, {})) == 1
    told = capsys.readouterr()
    assert told.out == "" and "baseline/seed-0" in told.err
    assert main("Told.", lambda path: {"none": 1.0}) == 0
    assert "| r | baseline (1) | 1.00 |" in capsys.readouterr().out
