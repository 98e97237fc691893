"""Means, spreads and paired differences over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

__all__ = ["Difference", "Summary", "paired_difference", "summarise"]


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation of n numbers; None where n is too small for it."""

    n: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with its 95% t-interval; None where n is too small for it."""

    n: int
    mean: float | None
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Better or worse where the interval leaves out zero; an error is better when lower."""
        if self.low is None or self.high is None:
            return ""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "unclear"


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
    r"""Mean difference over the seeds that both have, and its 95% interval.

    $$\bar d \pm t_{0.975,\,n-1} \, s_d / \sqrt n$$

    Args:
      ours: error by seed.
      baseline: error by seed; equal seeds share initial parameters and data.

    Returns:
      The difference, negative where `ours` is lower.
    """
    seeds = sorted(set(ours) & set(baseline))
    found = summarise([ours[seed] - baseline[seed] for seed in seeds])
    if found.mean is None or found.sd is None:
        return Difference(found.n, found.mean, None, None)
    half = float(stats.t.ppf(0.975, found.n - 1)) * found.sd / math.sqrt(found.n)
    return Difference(found.n, found.mean, found.mean - half, found.mean + half)
