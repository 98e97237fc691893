"""How long runs take: from like runs that are done, or said to be unknown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from collab_jax import config as config_lib
from collab_jax.config import Config
from collab_jax.study.state import State
from collab_jax.study.task import Run

__all__ = ["Estimate", "cost_key", "estimate", "spell"]

# What does not change how long a run takes.
_FREE = config_lib.RESUME_FREE_KEYS | {"seed", "data.label_noise", "init_from", "learning_rate"}


@dataclass(frozen=True)
class Estimate:
    """The time that a run still takes.

    Attributes:
      seconds: None where it is unknown.
      basis: what it rests on.
    """

    seconds: float | None
    basis: str


def cost_key(config: Config | None) -> tuple[object, ...]:
    """Equal for runs that take equally long; those without config count as alike."""
    if config is None:
        return ()
    return tuple(
        config[name] for name in config_lib.SCHEMA if name not in _FREE and "weight" not in name
    )


def estimate(runs: Mapping[str, Run], states: Mapping[str, State]) -> dict[str, Estimate]:
    """Estimates every run's time that is left.

    Args:
      runs: by name.
      states: of each.

    Returns:
      An estimate for each name.
    """
    measured: dict[tuple[object, ...], list[float]] = {}
    for name, run in runs.items():
        seconds = states[name].seconds
        if seconds is not None:
            measured.setdefault(cost_key(run.config), []).append(seconds)
    return {name: _one(run, states[name], measured) for name, run in runs.items()}


def _one(run: Run, state: State, measured: Mapping[tuple[object, ...], list[float]]) -> Estimate:
    if state.status == "done":
        return Estimate(0.0, "done")
    key = cost_key(run.config)
    if key in measured:
        seconds = statistics.mean(measured[key]) * (1.0 - state.fraction)
        return Estimate(seconds, f"{len(measured[key])} like it done")
    return Estimate(None, "unknown")


def spell(seconds: float | None) -> str:
    """Seconds as `1 h 05 min`, `3 min 20 s` or `unknown`."""
    if seconds is None:
        return "unknown"
    if seconds >= 3600:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if seconds >= 60:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    return f"{seconds:.0f} s"
