"""What a search is: which keys of a recipe vary, on which grid and in which ranges."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collab_jax import config as config_lib
from collab_jax.config import recipes
from collab_jax.errors import UserError
from collab_jax.study.spec import Cell
from collab_jax.study.task import Run, cell_run

__all__ = ["Range", "Search", "check_search", "grid_points", "load_search", "trial_runs"]


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, drawn evenly, or evenly in their logarithm."""

    low: float
    high: float
    log: bool = True


@dataclass(frozen=True)
class Search:
    """What a search file's `get_search(method)` returns.

    Attributes:
      recipe: file or shipped name of the recipe whose values are searched.
      method: as a config names it.
      grid: values by key; every combination is a trial.
      space: the range of each key of the grid, in which the trials after the grid are drawn.
      trials: how many in all, at least as many as the grid has points.
      overrides: other values for the recipe's keys in every trial; the best config is without
        them. A validation split has to be among them or in the recipe.
      seeds: of each trial's runs; a trial's value is their mean.
      prune: whether a trial that is worse than the median of the others at the same epoch ends.
      warmup_epochs: before which none is ended.
    """

    recipe: str
    method: str
    grid: Mapping[str, Sequence[float]]
    space: Mapping[str, Range]
    trials: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    prune: bool = True
    warmup_epochs: int = 0

    def identity(self) -> dict[str, Any]:
        """What must be equal for two processes to work on one search."""
        return {
            "recipe": self.recipe,
            "method": config_lib.parse_method(self.method),
            "grid": {key: list(values) for key, values in self.grid.items()},
            "space": {key: [r.low, r.high, r.log] for key, r in self.space.items()},
            "overrides": {key: config_lib.as_text(v) for key, v in self.overrides.items()},
            "seeds": list(self.seeds),
        }


def load_search(argument: str) -> tuple[str, Search]:
    """Runs a search file.

    Args:
      argument: `FILE` or `FILE:METHOD`, a path or the name of a shipped search.

    Returns:
      A name made of the file's and the method's, and the search.

    Raises:
      UserError: no such file, an error in it, or not a valid search.
    """
    file, method = recipes.split_argument(argument)
    path = config_lib.find_shipped("search", file)
    wanted = () if method is None else (config_lib.parse_method(method),)
    search = recipes.call(path, "get_search(method)", *wanted)
    if not isinstance(search, Search):
        raise UserError(
            f"{path}: get_search returned {type(search).__name__}, expected a "
            "collab_jax.study.search.spec.Search"
        )
    try:
        check_search(search)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return f"{path.stem}_{config_lib.parse_method(search.method)}", search


def check_search(search: Search) -> None:
    """Raises a UserError for a search that cannot be done, or that has no validation split."""
    if set(search.grid) != set(search.space) or not search.grid:
        raise UserError(
            f"grid has the keys {', '.join(search.grid) or 'none'}, space "
            f"{', '.join(search.space) or 'none'}; expected the same, at least one"
        )
    for key, values in search.grid.items():
        config_lib.check_key(key)
        bounds = search.space[key]
        if not values or not all(bounds.low <= value <= bounds.high for value in values):
            raise UserError(
                f"grid of {key} = {list(values)}: expected values from {bounds.low:g} to "
                f"{bounds.high:g}, its range in space"
            )
        if bounds.log and bounds.low <= 0:
            raise UserError(f"space of {key}: from {bounds.low:g}, expected above 0 with log")
    points = math.prod(len(values) for values in search.grid.values())
    if search.trials < points:
        raise UserError(f"trials = {search.trials}: expected the grid's {points} or more")
    for run in trial_runs(search, {key: values[0] for key, values in search.grid.items()}, Path()):
        assert run.config is not None
        if not run.config.data.validation:
            raise UserError(
                "data.validation = 0: a search chooses by a validation split, never by the test "
                "split; expected a fraction or a count in overrides or in the recipe"
            )


def grid_points(search: Search) -> list[dict[str, float]]:
    """Every combination of the grid's values."""
    return [
        dict(zip(search.grid, values, strict=True))
        for values in itertools.product(*search.grid.values())
    ]


def trial_runs(search: Search, parameters: Mapping[str, float], out: Path) -> list[Run]:
    """The runs of a trial, one for each seed.

    Args:
      search: a search.
      parameters: a value for each of its keys.
      out: the trial's folder.
    """
    overrides = {**search.overrides, **parameters}
    cell = Cell("search", "trial", search.recipe, search.method, overrides)
    return [cell_run(cell, seed, out) for seed in search.seeds]
