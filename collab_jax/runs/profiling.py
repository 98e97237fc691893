"""Traces of some training steps, in which each operation tells the part of the step it is of."""

import gzip
import itertools
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from collab_jax.errors import UserError
from collab_jax.objective.reading import SCOPE
from collab_jax.runs import processes
from collab_jax.runs.directory import PROFILE

__all__ = ["Profiler", "scope_of"]

_REMAT = ("", "checkpoint", "rematted_computation")


class Profiler:
    """Writes a trace of training steps into a run directory's `profile/`.

    TensorBoard's profile plugin opens the folder. Perfetto opens the folder's
    `perfetto_trace.json.gz`, whose operations are named `SCOPE: OPERATION`, see `scope_of`.

    Args:
      run_dir: the run directory.
      steps: the first step, counted from 0 at the run's beginning, and the one after the last; None
        for no trace.
      total_steps: the length of the run.

    Raises:
      UserError: if the run has no such steps.
    """

    def __init__(self, run_dir: Path, steps: tuple[int, int] | None, total_steps: int) -> None:
        self._folder = run_dir / PROFILE
        # Processes on one host would write the same files, and each traces its own devices alone.
        first, end = steps or (0, 0)
        if steps and first >= total_steps:
            raise UserError(
                f"--profile steps={first}:{end}: the run has the steps 0 to {total_steps - 1}"
            )
        self._first, self._end = (first, end) if processes.is_first() else (0, 0)
        self._running = False

    def begin(self, step: int) -> None:
        """Warns where a run goes on after the last step to trace."""
        if 0 < self._end <= step:
            warnings.warn(
                f"--profile steps={self._first}:{self._end}: the run goes on from step {step}, no "
                "trace is written",
                stacklevel=2,
            )

    @contextmanager
    def step(self, step: int, count: int, before: Any) -> Iterator[None]:
        """Around the dispatch of steps.

        Args:
          step: the first of them.
          count: how many are dispatched at once; they are traced together.
          before: an array of the dispatch before, which is waited for where the trace begins.
        """
        if step >= self._end or step + count <= self._first:
            yield
            return
        if not self._running:
            jax.block_until_ready(before)
            self._folder.mkdir(exist_ok=True)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def dispatched(self, step: int, report: Any) -> None:
        """Ends the trace if `step` is the one after the last, once `report` is computed."""
        if self._running and step >= self._end:
            jax.block_until_ready(report)
            self.close()

    def close(self) -> None:
        """Ends the trace of a run that stops within it, and writes what there is."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            try:
                _name_operations(max((self._folder / "plugins" / "profile").iterdir()))
            except (IndexError, KeyError, ValueError) as error:
                warnings.warn(
                    f"{self._folder}: the operations have no scopes, as this version of JAX writes "
                    f"traces in another form ({type(error).__name__}: {error})",
                    stacklevel=2,
                )


def scope_of(op_name: str) -> str:
    """The part of the train step that an operation is of.

    Args:
      op_name: of an HLO instruction, such as `jit(run)/transpose(jvp(mid))/heads/conv`.

    Returns:
      `augment`, `trunk`, a term's name such as `mid`, `mid/heads`, `optimizer`; with ` (backward)`
      for gradients, and empty for all else.
    """
    path = [part for part in op_name.split("/")[1:-1] if not re.match(r"(vmap\()?jit\(", part)]
    parts = [re.sub(r"\b(jvp|transpose|vmap)\(|\)", "", part) for part in path]
    # Where layers are rematerialised, what is computed anew stands under no part's own name.
    name, *within = [*itertools.dropwhile(lambda part: part in _REMAT, parts), ""]
    if not name.isidentifier():
        return ""
    heads = "heads" in within
    for part in within if name == "trunk" else ():
        if part.startswith(SCOPE):
            name, heads = part.removeprefix(SCOPE), True
    return name + "/heads" * heads + (" (backward)" if path[0].startswith("transpose(") else "")


def _name_operations(folder: Path) -> None:
    """Writes Perfetto's form of a trace, with the scope in front of each operation's name."""
    scopes: dict[str, str] = {}
    for path in folder.glob("*.xplane.pb"):
        scopes.update(_scopes(memoryview(path.read_bytes())))
    for path in folder.glob("*.trace.json.gz"):
        with gzip.open(path) as file:
            trace = json.load(file)
        for event in trace["traceEvents"]:
            scope = scopes.get(event.get("args", {}).get("hlo_op", ""))
            if scope:
                event["name"] = f"{scope}: {event['name']}"
                event["args"]["scope"] = scope
        with gzip.open(folder / "perfetto_trace.json.gz", "wt") as file:
            json.dump(trace, file)


def _scopes(space: memoryview) -> Iterator[tuple[str, str]]:
    """(HLO operation, scope) of the programs that a trace (an XSpace message) holds.

    Read field by field, as the message's own classes come with TensorFlow alone.
    """
    for plane in _within(space, 1):
        if "/host:metadata" not in (str(name, "utf-8") for name in _within(plane, 2)):
            continue
        # XPlane.event_metadata and its value, XEventMetadata.stats, XStat.bytes_value;
        # HloProto.hlo_module, HloModuleProto.computations, HloComputationProto.instructions.
        for instruction in _within(plane, 4, 2, 5, 6, 1, 3, 2):
            (name,) = _within(instruction, 1)
            for op_name in _within(instruction, 7, 2):  # metadata, op_name
                scope = scope_of(str(op_name, "utf-8"))
                if scope:
                    yield str(name, "utf-8"), scope


def _within(message: memoryview, field: int, *fields: int) -> Iterator[memoryview]:
    """The values of a field, or of its fields' fields, of a protocol buffer message."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        wire = key & 7
        length = 0
        if wire == 0:
            _, position = _varint(message, position)
        elif wire == 2:
            length, position = _varint(message, position)
        else:
            length = {1: 8, 5: 4}[wire]
        value = message[position : position + length]
        position += length
        if wire == 2 and key >> 3 == field:
            if fields:
                yield from _within(value, *fields)
            else:
                yield value


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7
