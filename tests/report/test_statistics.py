"""The report's statistics beside independent computations."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from collab_jax.report.statistics import (
    Difference,
    compare,
    detectable,
    holm,
    paired_difference,
    sign_flip_p,
    summarise,
)

OURS = {0: 20.0, 1: 21.5, 2: 19.25, 3: 22.0}
THEIRS = {0: 22.0, 1: 22.5, 2: 21.0, 3: 25.0}


def test_intervals_and_p_are_those_of_scipy():
    ours, theirs = (np.array(list(values.values())) for values in (OURS, THEIRS))
    found = paired_difference(OURS, THEIRS)
    test = stats.ttest_rel(ours, theirs)
    interval = test.confidence_interval(0.95)
    assert (found.n, found.mean) == (4, pytest.approx(np.mean(ours - theirs)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(test.pvalue) and found.adjusted is None
    assert found.verdict == "better"
    assert paired_difference(THEIRS, OURS).verdict == "worse"
    summary = summarise(list(OURS.values()))
    assert (summary.mean, summary.sd) == pytest.approx((ours.mean(), ours.std(ddof=1)))


def test_few_seeds_give_no_interval_and_only_common_ones_count():
    assert summarise([]).mean is None and summarise([3.0]).sd is None
    assert paired_difference({}, THEIRS).mean is None
    one = paired_difference({0: 20.0, 9: 1.0}, THEIRS)
    assert (one.n, one.mean, one.low, one.verdict) == (1, -2.0, None, "")


def test_two_seeds_claim_nothing_however_far_apart():
    two = paired_difference({0: 10.0, 1: 10.001}, {0: 20.0, 1: 20.0})
    assert two.p is not None and two.p < 1e-3 and two.high is not None and two.high < 0
    assert two.verdict == compare([two])[0].verdict == "too few seeds to tell"
    three = paired_difference({0: 10.0, 1: 10.001, 2: 9.999}, {0: 20.0, 1: 20.0, 2: 20.0})
    assert three.verdict == "better"


def test_equal_differences_have_a_p():
    values = dict.fromkeys(range(4), 2.0)
    assert paired_difference(values, values).p == 1.0
    assert paired_difference(values, dict.fromkeys(range(4), 1.0)).p == 0.0


@pytest.mark.parametrize("n", range(2, 9))
def test_the_sign_flip_p_counts_all_signs(n):
    values = np.random.default_rng(n).normal(-1, 1, n)
    means = [np.dot(signs, values) / n for signs in itertools.product((1, -1), repeat=n)]
    expected = np.mean(np.abs(means) >= abs(values.mean()) * (1 - 1e-12))
    assert sign_flip_p(values.tolist()) == pytest.approx(expected)
    assert sign_flip_p([-1.0] * n) == pytest.approx(2.0 ** (1 - n))


def test_many_seeds_draw_the_signs():
    values = np.random.default_rng(0).normal(0.3, 1, 40)
    # Of many values the mean under flipped signs is nearly normal.
    expected = 2 * stats.norm.sf(abs(values.sum()) / np.sqrt(np.sum(values**2)))
    assert sign_flip_p(values.tolist()) == pytest.approx(expected, abs=0.01)
    assert sign_flip_p(values.tolist()) == sign_flip_p(values.tolist())


def test_holm_is_the_closed_test_of_bonferroni():
    p = np.random.default_rng(0).uniform(0, 0.3, 6).round(2).tolist()
    for place in range(6):
        sets = [
            [p[i] for i in chosen]
            for size in range(1, 7)
            for chosen in itertools.combinations(range(6), size)
            if place in chosen
        ]
        expected = max(min(1.0, len(chosen) * min(chosen)) for chosen in sets)
        assert holm(p)[place] == pytest.approx(expected)
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_verdicts_are_those_after_holm():
    alone = Difference(5, -1.0, -1.9, -0.1, 0.03, 0.0625, 1.0)
    (kept,) = compare([alone])
    assert (kept.adjusted, kept.verdict) == (0.03, "better")
    first, missing, second = compare([alone, Difference(0, None), alone])
    assert (first.adjusted, first.verdict) == (0.06, "unclear") == (second.adjusted, second.verdict)
    assert missing.adjusted is None and missing.verdict == ""


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_the_detectable_effect_is_found_in_four_of_five_studies(n):
    limit, shift = stats.t.ppf(0.975, n - 1), detectable(n) * np.sqrt(n)

    def found(spread):
        """Density of the estimated spread times the chance to reject, by the true spread of 1."""
        density = stats.chi.pdf(spread * np.sqrt(n - 1), n - 1) * np.sqrt(n - 1)
        return density * stats.norm.sf(limit * spread - shift)

    assert integrate.quad(found, 0, 10, limit=200)[0] == pytest.approx(0.8, abs=1e-5)
    values = {seed: float(seed) for seed in range(n)}
    difference = paired_difference(values, dict.fromkeys(values, 0.0))
    assert difference.detectable == pytest.approx(detectable(n) * np.std(range(n), ddof=1))
