"""Means, spreads, paired differences over seeds, and what so few seeds can tell."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scipy import optimize, stats

__all__ = [
    "FEWEST",
    "LEVEL",
    "POWER",
    "Difference",
    "Summary",
    "compare",
    "detectable",
    "holm",
    "paired_difference",
    "sign_flip_p",
    "summarise",
]

LEVEL = 0.05
"""The share of tables without any effect in which a verdict may be wrong."""

POWER = 0.8
"""The share of repeated studies that have to find an effect that counts as detectable."""

FEWEST = 3
"""The fewest seeds from which a verdict is given."""

_EXACT = 1 << 16


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of n numbers; None where n is too small for it."""

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """Paired differences over n seeds; None where n is too small for a value.

    Attributes:
      n: seeds.
      mean: of the differences, negative where the first is lower.
      low: lower end of the 95% t-interval.
      high: its upper end.
      p: of the paired t-test, two-sided.
      exact: of the sign-flip test, two-sided.
      detectable: the difference that n seeds with this spread find with 80% power.
      adjusted: `p` by Holm's method, among the differences that were compared together.
    """

    n: int
    mean: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    exact: float | None = None
    detectable: float | None = None
    adjusted: float | None = None

    @property
    def verdict(self) -> str:
        """Better or worse where Holm's p is below 0.05; an error is better when lower."""
        if self.mean is None or self.p is None:
            return ""
        if self.n < FEWEST:
            return "too few seeds to tell"
        p = self.p if self.adjusted is None else self.adjusted
        if p >= LEVEL:
            return "unclear"
        return "better" if self.mean < 0 else "worse"


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation (over n - 1)."""
    n = len(values)
    if n == 0:
        return Summary(0, None, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, None)
    return Summary(n, mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)))


def paired_difference(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    r"""Mean difference over the seeds that both have, its 95% interval and its tests.

    $$\bar d \pm t_{0.975,\,n-1} \, s_d / \sqrt n$$

    Args:
      ours: error by seed.
      baseline: error by seed; equal seeds share initial parameters and data.

    Returns:
      The difference, negative where `ours` is lower, by itself: not adjusted for others.
    """
    seeds = sorted(set(ours) & set(baseline))
    values = [ours[seed] - baseline[seed] for seed in seeds]
    found = summarise(values)
    if found.mean is None or found.sd is None:
        return Difference(found.n, found.mean)
    error = found.sd / math.sqrt(found.n)
    half = float(stats.t.ppf(1 - LEVEL / 2, found.n - 1)) * error
    if error:
        p = float(2 * stats.t.sf(abs(found.mean) / error, found.n - 1))
    else:
        p = 0.0 if found.mean else 1.0
    return Difference(
        found.n,
        found.mean,
        found.mean - half,
        found.mean + half,
        p,
        sign_flip_p(values),
        detectable(found.n) * found.sd,
    )


def sign_flip_p(differences: Sequence[float]) -> float:
    """How often the mean is as far from zero if each difference may have either sign.

    It assumes no distribution. Of n seeds it is $2^{1-n}$ at the least: 0.0625 of five.

    Args:
      differences: paired, n of them; up to 16 all signs are gone through, of more 65,536 are drawn.

    Returns:
      The two-sided p.

    References:
      R. A. Fisher, "The Design of Experiments", 1935.
    """
    found = stats.permutation_test(
        (list(differences),),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_EXACT,
        rng=0,
    )
    return float(found.pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusts p-values that were looked at together, so that the 5% hold for all of them.

    Args:
      p: of m tests, which may depend on each other.

    Returns:
      The adjusted values in the same order: the i-th lowest times m - i + 1, none below one before.

    References:
      S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        highest = max(highest, min(1.0, p[place] * (len(p) - rank)))
        adjusted[place] = highest
    return adjusted


def compare(differences: Sequence[Difference]) -> list[Difference]:
    """Adjusts differences that stand in one table by Holm's method; those without p stay."""
    tested = [place for place, found in enumerate(differences) if found.p is not None]
    adjusted = holm([p for found in differences if (p := found.p) is not None])
    compared = list(differences)
    for place, value in zip(tested, adjusted, strict=True):
        compared[place] = replace(compared[place], adjusted=value)
    return compared


@functools.cache
def detectable(n: int) -> float:
    """The effect, in standard deviations of paired differences, that n seeds find with 80% power.

    Args:
      n: seeds, at least two.

    Returns:
      The mean over the standard deviation at which a two-sided paired t-test at 5% rejects in 80%
      of studies.
    """
    limit = float(stats.t.ppf(1 - LEVEL / 2, n - 1))

    def lacking(shift: float) -> float:
        # A rejection on the wrong side is left out: at this power one in a hundred thousand.
        return float(stats.nct.sf(limit, n - 1, shift)) - POWER

    shift: Any = optimize.brentq(lacking, 0.0, 2 * limit + 2)
    return shift / math.sqrt(n)
