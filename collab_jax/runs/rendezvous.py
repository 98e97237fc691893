"""Where the processes of a run find each other before JAX connects them.

JAX waits for those that are missing without a word, and then ends the process in a C++ abort.
"""

import json
import socket
import time
from contextlib import ExitStack, suppress
from typing import Any

from collab_jax.errors import RunError, UserError

__all__ = ["meet"]

_PAUSE = 0.2
_GREETING_SECONDS = 5.0
_READY = {"ready": True}


def meet(coordinator: str, num_processes: int, process_id: int, timeout: float) -> None:
    """Returns once every process is there and was told of as many as the others.

    Args:
      coordinator: HOST:PORT, at which the first process listens until all have come.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      timeout: seconds to wait for the others.

    Raises:
      RunError: if one is not there in time.
      UserError: in each process that knows of one that was told another number, or that took its
        number.
    """
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + timeout
    if process_id:
        _greet(host.strip("[]"), int(port), num_processes, process_id, end)
    else:
        _receive(int(port), coordinator, num_processes, end)


def _receive(port: int, coordinator: str, count: int, end: float) -> None:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(_listening(port))
        except OSError as error:
            raise UserError(
                f"--coordinator {coordinator}: process 0 cannot listen there ({error.strerror}); "
                "expected a free port of this machine"
            ) from None
        there: dict[int, socket.socket] = {}
        while len(there) < count - 1:
            server.settimeout(max(end - time.monotonic(), 0.001))
            try:
                other, _ = server.accept()
            except TimeoutError:
                missing = sorted(set(range(1, count)) - set(there))
                raise _missing(0, count, coordinator, missing) from None
            stack.enter_context(other)
            greeting = _read(other, _GREETING_SECONDS)
            number, told = greeting.get("process_id"), greeting.get("num_processes")
            if not (isinstance(number, int) and isinstance(told, int)):
                continue  # Whoever that is, it is none of ours.
            if told != count or number in there:
                for each in (*there.values(), other):
                    _send(each, {"process_id": number, "num_processes": told, "count": count})
                raise _contradiction(count, number, told)
            there[number] = other
        for each in there.values():
            _send(each, _READY)
        for each in there.values():
            _read(each, _GREETING_SECONDS)  # It closes first, so that the port is free at once.


def _greet(host: str, port: int, count: int, number: int, end: float) -> None:
    coordinator = f"{host}:{port}"
    while (left := end - time.monotonic()) > 0:
        try:
            server = socket.create_connection((host, port), timeout=left)
        except socket.gaierror as error:
            raise UserError(
                f"--coordinator {coordinator}: no such host ({error.strerror}), expected HOST:PORT"
            ) from None
        except OSError:
            time.sleep(_PAUSE)
            continue
        with server:
            _send(server, {"process_id": number, "num_processes": count})
            # The first process tells who is missing; it is given the time to.
            answer = _read(server, end - time.monotonic() + _GREETING_SECONDS)
        if answer == _READY:
            return
        if "count" in answer:
            other, told = answer["process_id"], answer["num_processes"]
            if other == number and told != answer["count"]:
                other, told = 0, answer["count"]
            raise _contradiction(count, other, told)
        raise RunError(
            f"process {number} of {count}: process 0 at {coordinator} ended, or waits for others; "
            "what it printed says more"
        )
    raise _missing(number, count, coordinator, [0])


def _contradiction(count: int, other: int, told: int) -> UserError:
    if told == count:
        return UserError(f"--process_id {other}: two processes have it, expected one")
    return UserError(
        f"--num_processes {count}: process {other} was started with {told}; expected the same in "
        "all of them"
    )


def _missing(number: int, count: int, coordinator: str, others: list[int]) -> RunError:
    names = ", ".join(map(str, others))
    return RunError(
        f"process {number} of {count}: could not join the others at {coordinator}, as process "
        f"{names} did not come in time; start all of them within two minutes"
    )


def _listening(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _send(other: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):
        other.sendall(json.dumps(message).encode() + b"\n")


def _read(other: socket.socket, seconds: float) -> dict[str, Any]:
    """A message; an empty one of whoever says nothing, or something else."""
    other.settimeout(max(seconds, 0.001))
    try:
        with other.makefile("rb") as file:
            message = json.loads(file.readline(1000))
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) else {}
