"""Time and memory of the methods' programs on the device."""

import gc
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from collab_jax.benchmark.gpu.peaks import peak_flops
from collab_jax.benchmark.gpu.programs import Program, prepare
from collab_jax.benchmark.step_time import time_in_turn
from collab_jax.benchmark.workload import Case
from collab_jax.errors import reason

__all__ = ["memory", "step_times", "timed_rows"]


def step_times(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Times every method's programs at one precision in turn.

    Args:
      cell: `case`, `methods`, `precision`, `chunk` and `repeats`.

    Returns:
      `rows`, one for each program; one that fails has its `error`.
    """
    programs, failed = _prepared(cell)
    rows = timed_rows(programs, Case(**cell["case"]).batch_size, cell["repeats"])
    kind = jax.devices()[0].device_kind
    peak = peak_flops(kind, cell["precision"])
    for row in rows:
        row["utilisation"] = peak and row["flops"] / row["median"] / peak
    return {"rows": rows + failed, "peak_flops": peak}


def timed_rows(programs: list[Program], batch_size: int, repeats: int) -> list[dict[str, Any]]:
    """Programs timed in turn, a row each: seconds of a step, and images a second."""
    seconds = time_in_turn({program.name: program.run for program in programs}, repeats)
    rows = []
    for program in programs:
        values = [value / program.steps for value in seconds[program.name]]
        median = statistics.median(values)
        rows.append(
            {
                "name": program.name,
                **program.figures,
                "median": median,
                "fastest": min(values),
                "slowest": max(values),
                "images_per_second": batch_size / median,
            }
        )
    return rows


def memory(cell: Mapping[str, Any]) -> dict[str, Any]:
    """The device's peak beside the planned one, in a process that does nothing else.

    The allocator's peak only rises, so that programs run by ascending plan, one at a time; where a
    program does not raise it, its own is at most what it was.

    Args:
      cell: as for `step_times`.

    Returns:
      `rows`: planned bytes, the device's peak or None, and `at_most` in that case.
    """
    case, rows = Case(**cell["case"]), []
    planned: dict[str, int] = {}
    for method in cell["methods"]:
        try:
            programs = prepare(replace(case, method=method), cell["precision"], cell["chunk"])
            planned[method] = max(p.figures["planned_bytes"] or 0 for p in programs)
        except Exception as error:
            rows.append({"name": method, "error": reason(error)})
        programs = []
        gc.collect()
    for method in sorted(planned, key=lambda name: planned[name]):
        programs = prepare(replace(case, method=method), cell["precision"], cell["chunk"])
        for program in sorted(programs, key=lambda p: p.figures["planned_bytes"] or 0):
            before = _peak()
            try:
                program.run()
            except Exception as error:
                rows.append({"name": program.name, "error": reason(error)})
                continue
            after = _peak()
            rose = after is not None and before is not None and after > before
            rows.append(
                {
                    "name": program.name,
                    **program.figures,
                    "device_bytes": after if rose else None,
                    "at_most": None if rose else after,
                }
            )
        programs = []
        gc.collect()
    return {"rows": rows}


def _prepared(cell: Mapping[str, Any]) -> tuple[list[Program], list[dict[str, Any]]]:
    programs, failed = [], []
    for method in cell["methods"]:
        case = replace(Case(**cell["case"]), method=method)
        try:
            made = prepare(case, cell["precision"], cell["chunk"])
            for program in made:
                program.run()
            programs += made
        except Exception as error:
            failed.append({"name": method, "error": reason(error)})
    return programs, failed


def _peak() -> int | None:
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else None
