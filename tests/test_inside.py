"""What is measured inside of a study's networks."""

import numpy as np
import pytest
from inside import agreement, measure, off_diagonal_correlation
from tiny import tiny_config

from collab_jax.runs import loop
from collab_jax.runs.diagnostics import diagnose
from collab_jax.runs.load import load_run
from collab_jax.training.build import load_data


def test_agreement_counts_pairs_of_branches():
    # Of three branches' pairs two agree on the first image, none on the second, all on the third.
    predictions = np.array([[1, 0, 2], [1, 1, 2], [1, 2, 2]])
    assert agreement(predictions) == pytest.approx(100 * 6 / 9)
    assert agreement(np.array([[1, 0], [0, 0]])) == 50


def test_the_diagonal_counts_for_nothing():
    first = np.array([[9, 1, 2], [1, 9, 3], [2, 3, 9]], np.float16)
    assert off_diagonal_correlation(first, 5 - 2 * first) == pytest.approx(-1)
    second = np.array([[-7, 1, 2], [1, 0, 3], [2, 3, 50]])
    assert off_diagonal_correlation(first, second) == pytest.approx(1)


def test_a_runs_figures_are_those_of_its_checkpoint(tmp_path):
    run = tmp_path / "run"
    result = loop.run(tiny_config("baseline", epochs=3, learning_rate=0.05), run)
    found = measure(run)
    names = [name for name in found if name.startswith("probe")]
    assert names == ["probe 3", "probe 6", "probe 10", "probe 13"]
    assert all(0 < found[name] < 90 for name in names[1:])
    restored = load_run(run, "last")
    dataset = load_data(restored.config)
    inside = diagnose(restored.config, restored.info, dataset.test, restored.variables)
    pairs = np.triu_indices(len(inside["labels"]), 1)
    for kind in ("labels", "inputs"):
        for layer in (3, 13):
            one, two = inside["similarity_after"][layer - 1], inside[f"similarity_{kind}"]
            expected = np.corrcoef(one[pairs].astype(float), two[pairs].astype(float))[0, 1]
            assert found[f"{kind} {layer}"] == pytest.approx(expected)
    images, labels = dataset.train.take(np.arange(len(dataset.train)))
    wrong = restored.predict(images).argmax(-1) != labels
    assert found["train"] == pytest.approx(100 * wrong.mean()) != result["last_test_error"]
    assert 0 < found["agree"] <= 100 and 0 < found["entropy"] <= np.log(10)
