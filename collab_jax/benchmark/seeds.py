"""Train steps of several seeds in one program, timed in turn with as many steps of one alone."""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from collab_jax.benchmark.markdown import heading, table
from collab_jax.benchmark.step_time import time_in_turn
from collab_jax.config import Config
from collab_jax.data import DataInfo
from collab_jax.runs.seeds import SeedsStep
from collab_jax.training.batches import Feed
from collab_jax.training.build import create_experiment, load_data
from collab_jax.training.placement import Placement
from collab_jax.training.state import create_train_state

__all__ = ["measure_seeds", "seeds_markdown"]


def measure_seeds(config: Config, counts: Sequence[int], *, repeats: int) -> list[dict[str, Any]]:
    """Times one step of S seeds together against S steps of one seed.

    Args:
      config: a valid config; its data are those of every seed.
      counts: S of each row after the solo program's.
      repeats: timed rounds.

    Returns:
      A row for every S: `seeds`, `compile_seconds` of its program with the first step, and the
      median, fastest and slowest seconds of a step of S seeds; the row of 1 is the solo program's.
    """
    dataset, placement = load_data(config), Placement()
    info = DataInfo.of(dataset)
    parts = create_experiment(config, info, len(dataset.train) // config.batch_size)
    feed = Feed(
        dataset.train,
        parts.settings,
        placement,
        batch_size=config.batch_size,
        seed=config.seed,
        resident="always",
    )
    first = create_train_state(
        parts.model, parts.objective, parts.optimizer, info.image_shape, config.seed
    )
    indices = feed.order(0)[0]

    def alone() -> Callable[[], None]:
        batch = placement.distribute(indices)
        return _repeated(lambda state: feed.run(state, batch)[0], placement.replicate(first))

    def together(count: int) -> Callable[[], None]:
        step = SeedsStep([parts.settings] * count, [feed] * count)
        state = jax.tree.map(lambda leaf: jnp.stack([leaf] * count), first)
        batches = np.stack([indices] * count)
        return _repeated(lambda state: step(state, batches)[0], placement.replicate(state))

    steps = {1: alone()} | {count: together(count) for count in counts}
    compile_seconds = {}
    for count, run in steps.items():
        began = time.perf_counter()
        run()
        compile_seconds[count] = time.perf_counter() - began
    seconds = time_in_turn({str(count): run for count, run in steps.items()}, repeats)
    return [
        {
            "seeds": count,
            "compile_seconds": compile_seconds[count],
            "median": statistics.median(seconds[str(count)]),
            "fastest": min(seconds[str(count)]),
            "slowest": max(seconds[str(count)]),
        }
        for count in steps
    ]


def _repeated(step: Callable[[Any], Any], state: Any) -> Callable[[], None]:
    held = [state]

    def run() -> None:
        held[0] = step(held[0])
        jax.block_until_ready(held[0])

    return run


def seeds_markdown(rows: Sequence[dict[str, Any]], title: str, command: str) -> str:
    """The rows as a table.

    Args:
      rows: what `measure_seeds` returned.
      title: the recipe and its method.
      command: what made them.

    Returns:
      The text.
    """
    alone = rows[0]
    about = (
        f"{title}. {platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}; "
        "the programs in turn, warm-up left out. Solo runs compile each by itself."
    )
    columns = (
        *("seeds", "compile s", "/ as many solo"),
        *("median step s", "fastest s", "slowest s", "/ as many solo"),
    )
    cells = [
        (
            row["seeds"],
            f"{row['compile_seconds']:.1f}",
            f"{row['compile_seconds'] / (row['seeds'] * alone['compile_seconds']):.2f}",
            *(f"{row[name]:.4f}" for name in ("median", "fastest", "slowest")),
            f"{row['median'] / (row['seeds'] * alone['median']):.2f}",
        )
        for row in rows
    ]
    lines = heading("Several seeds in one program", about, command) + table(columns, cells)
    return "\n".join(lines) + "\n"
