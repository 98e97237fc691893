"""What is measured inside of a study's networks."""

import numpy as np
import pytest
from inside import agreement, measure, off_diagonal_correlation
from tiny import tiny_config

from collab_jax.runs import loop


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


def test_a_run_is_measured_as_it_was_trained(tmp_path):
    config = tiny_config("baseline", epochs=3, learning_rate=0.05)
    loop.run(config, tmp_path / "run")
    found = measure(tmp_path / "run")
    assert {"probe 13", "labels 13", "inputs 13", "filters", "agree", "entropy"} < set(found)
    assert 0 <= found["train"] <= 100 and 0 < found["probe 13"] < 90
    assert 0 < found["agree"] <= 100 and 0 < found["entropy"] <= np.log(10)
