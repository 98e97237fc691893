"""A study on the terminal: a table of states while it runs, and its plan."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from collab_jax.study.estimate import Estimate, spell
from collab_jax.study.state import State
from collab_jax.study.task import Run

__all__ = ["Board", "plan_table"]

_ORDER = ("running", "queued", "failed", "stopped", "waiting", "done")
_SHOWN = 12


def _order(status: str) -> int:
    return _ORDER.index(status)


class Board:
    """Shows the states of a study's runs; without a terminal, a line for each change.

    Args:
      title: of the study.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._console = Console(highlight=False, soft_wrap=True, markup=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._terminal = sys.stdout.isatty()
        self._before: dict[str, str] = {}

    def __enter__(self) -> Board:
        if self._terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._live.stop()

    def update(
        self, states: Mapping[str, State], left: Mapping[str, float | None], total: float | None
    ) -> None:
        """Shows the states.

        Args:
          states: by run name.
          left: seconds left of the running ones.
          total: seconds left of the study.
        """
        for name, state in states.items():
            if self._before.get(name) != state.status and name in self._before | dict(left):
                self._tell(name, state)
            self._before[name] = state.status
        if self._terminal:
            self._live.update(state_table(self._title, states, left, total), refresh=True)

    def say(self, text: str) -> None:
        """A line above the table."""
        self._console.print(text)

    def _tell(self, name: str, state: State) -> None:
        if self._terminal and state.status != "failed":
            return
        detail = {
            "failed": f": {state.reason}",
            "done": f": test error {state.error:.2f}%" if state.error is not None else "",
        }.get(state.status, "")
        self._console.print(f"{state.status:8}{name}{detail}")


def state_table(
    title: str,
    states: Mapping[str, State],
    left: Mapping[str, float | None],
    total: float | None,
) -> Table:
    """Counts of the states, and the runs that a reader wants to see first."""
    counts = Counter(state.status for state in states.values())
    text = ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status])
    table = Table(title=title, title_justify="left", caption=f"{text}; {spell(total)} left")
    for name in ("run", "state", "epoch", "test error", "left or reason"):
        table.add_column(name, overflow="fold")
    shown = sorted(states, key=lambda name: _order(states[name].status))[:_SHOWN]
    for name in shown:
        state = states[name]
        note = state.reason
        if state.status == "running":
            note = spell(left.get(name))
        table.add_row(
            name,
            state.status,
            f"{state.epoch}/{state.epochs}",
            "" if state.error is None else f"{state.error:.2f}%",
            note,
        )
    if len(states) > len(shown):
        table.add_row(f"and {len(states) - len(shown)} more", "", "", "", "")
    return table


def plan_table(
    cells: Sequence[tuple[str, str, Sequence[Run]]],
    states: Mapping[str, State],
    estimates: Mapping[str, Estimate],
    flops: Mapping[str, float],
) -> Table:
    """A dry run: a line for each cell, with its runs' states and time.

    Args:
      cells: row, column and the runs of each seed.
      states: by run name.
      estimates: by run name.
      flops: of a run by its name, where they were counted.
    """
    table = Table(title_justify="left")
    columns: list[tuple[str, Any]] = [("row", "left"), ("column", "left"), ("runs", "right")]
    columns += [("states", "left"), ("time left, each", "right"), ("basis", "left")]
    columns += [("PFLOP, each", "right")] if flops else []
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")
    for row, column, runs in cells:
        counts = Counter(states[run.name].status for run in runs)
        text = ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status])
        # A run that is not done tells more than one that is.
        open_runs = [run for run in runs if states[run.name].status != "done"] or list(runs)
        estimate = estimates[open_runs[0].name]
        cost = [f"{flops[runs[0].name] / 1e15:.4g}" if runs[0].name in flops else "unknown"]
        table.add_row(
            row,
            column,
            str(len(runs)),
            text,
            spell(estimate.seconds),
            estimate.basis,
            *(cost if flops else []),
        )
    return table
