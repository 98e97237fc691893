"""Several processes that train one run: the first one reads and writes, all of them compute."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from collab_jax.errors import RunError, UserError, cut
from collab_jax.runs.rendezvous import meet
from collab_jax.training.placement import Placement

__all__ = [
    "Vote",
    "is_first",
    "leave",
    "share",
    "share_arrays",
    "start",
    "under_slurm",
    "watched",
]

_HEARTBEAT_SECONDS = 30
_JOIN_SECONDS = 120
_ERRORS: dict[str, type[Exception]] = {"UserError": UserError, "RunError": RunError}


def start(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of a run; before any use of a device.

    Args:
      coordinator: HOST:PORT at which the first process listens.
      num_processes: how many there are.
      process_id: which one this is, from 0. All three may be left to JAX under SLURM.

    Raises:
      RunError: if the others are not there in time.
      UserError: if one of them was told another number of processes.
    """
    if coordinator is not None and num_processes is not None and process_id is not None:
        meet(coordinator, num_processes, process_id, _JOIN_SECONDS)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"process {process_id} of {num_processes}: could not join the others at {coordinator} "
            f"({str(error).splitlines()[0]})"
        ) from error


def under_slurm() -> bool:
    """Whether SLURM started this process as one of several of a job step."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in os.environ


@contextmanager
def watched() -> Iterator[None]:
    """Raises a RunError in place of what JAX makes of a lost connection to another process."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise RunError(
            f"process {jax.process_index()} of {jax.process_count()}: another process of this run "
            f"is gone ({cut(str(error).splitlines()[0], 200)}); start all of them again to go on "
            "from the last checkpoint"
        ) from error


def is_first() -> bool:
    """Whether this process is the one that reads and writes the run directory."""
    return jax.process_index() == 0


def share(make: Callable[[], Any]) -> Any:
    """What a function returns in the first process, where alone it runs, in all of them.

    Args:
      make: returns what JSON can hold.

    Raises:
      UserError, RunError: in every process, if `make` raises it in the first.
    """
    if jax.process_count() == 1:
        return make()
    if not is_first():
        return _received(_broadcast_bytes(b""))
    try:
        message = {"value": make()}
    except (UserError, RunError) as error:
        _broadcast_bytes(_failure(error))
        raise
    return _received(_broadcast_bytes(json.dumps(message).encode()))


def share_arrays(make: Callable[[], tuple[Any, Any]], template: Any) -> tuple[Any, Any]:
    """As `share`, for a pytree of arrays and a value that JSON can hold.

    Args:
      make: returns both.
      template: a pytree of arrays of the same shapes and dtypes.

    Returns:
      The arrays, of NumPy where there are several processes, and the value.
    """
    if jax.process_count() == 1:
        return make()
    made: list[Any] = []

    def value() -> Any:
        arrays, rest = make()
        made.append(arrays)
        return rest

    rest = share(value)
    leaves, treedef = jax.tree.flatten(made[0] if made else template)
    host = [np.asarray(leaf) for leaf in leaves]
    # As bytes: a sum over processes, which is how JAX sends them, may change a float's.
    sent = _broadcast([np.frombuffer(leaf.tobytes(), np.uint8) for leaf in host])
    arrays = [
        np.frombuffer(received.tobytes(), leaf.dtype).reshape(leaf.shape)
        for received, leaf in zip(sent, host, strict=True)
    ]
    return jax.tree.unflatten(treedef, arrays), rest


def _failure(error: Exception) -> bytes:
    return json.dumps({"error": type(error).__name__, "text": str(error)}).encode()


def _received(message: bytes) -> Any:
    content = json.loads(message)
    if "error" in content:
        raise _ERRORS.get(content["error"], RunError)(content["text"])
    return content["value"]


def _broadcast_bytes(message: bytes) -> bytes:
    (length,) = _broadcast([np.array([len(message)], np.int32)])
    padded = np.zeros(int(length[0]), np.uint8)
    padded[: len(message)] = np.frombuffer(message, np.uint8)
    return _broadcast([padded])[0].tobytes()


def _broadcast(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    from jax.experimental import multihost_utils

    return [np.asarray(x) for x in multihost_utils.broadcast_one_to_all(list(arrays))]


class Vote:
    """Lets all processes act on a signal at the same step.

    With several processes a vote is counted on the devices while they compute, and known one call
    later.

    Args:
      placement: of the run.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._pending: jax.Array | None = None
        self._count = jax.jit(jnp.max, out_shardings=placement.everywhere)

    def cast(self, number: int) -> int:
        """Gives this process's number; every process must call this equally often.

        Returns:
          The largest number given: in this call by one process alone, otherwise by any of them in
          the call before.
        """
        if jax.process_count() == 1:
            return number
        before = self._pending
        votes = np.full(self._placement.devices, number, np.int32)
        self._pending = self._count(self._placement.distribute(votes))
        return 0 if before is None else int(before)


def leave(code: int) -> None:
    """Ends one of several processes at once: its orderly end would wait for those that are gone."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
