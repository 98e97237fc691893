"""Processes that find each other, and those that do not, each told in one line."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from collab_jax.errors import RunError, UserError
from collab_jax.runs.rendezvous import meet


def address():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def met(*processes, timeout=20.0, coordinator=""):
    """What `meet` raised in each of several processes of (number, count)."""
    coordinator = coordinator or address()

    def one(number, count):
        try:
            meet(coordinator, count, number, timeout)
        except (RunError, UserError) as error:
            assert str(error).isprintable()
            return error
        return None

    with ThreadPoolExecutor(len(processes)) as pool:
        started = [pool.submit(one, *process) for process in processes]
        return [each.result() for each in started]


def test_all_go_on_together_in_any_order_and_the_port_is_free_again():
    coordinator = address()
    for order in (((0, 3), (1, 3), (2, 3)), ((2, 3), (1, 3), (0, 3)), ((0, 1),)):
        assert met(*order, coordinator=coordinator) == [None] * len(order)


@pytest.mark.parametrize("counts", [(2, 3), (3, 2)])
def test_other_numbers_are_told_in_both(counts):
    errors = met((0, counts[0]), (1, counts[1]))
    for error, own, other in zip(errors, counts, counts[::-1], strict=True):
        assert isinstance(error, UserError)
        assert f"--num_processes {own}: process " in str(error) and f"with {other}" in str(error)


def test_a_number_given_twice_is_told():
    errors = met((0, 3), (1, 3), (1, 3))
    assert all(isinstance(error, UserError) for error in errors)
    assert {str(error).split(":")[0] for error in errors} == {"--process_id 1"}


def test_who_is_missing_is_told_by_all_that_came():
    began = time.monotonic()
    first, second = met((0, 3), (2, 3), timeout=1.0)
    assert isinstance(first, RunError) and "process 1 did not come in time" in str(first)
    assert isinstance(second, RunError) and "process 2 of 3: process 0" in str(second)
    (alone,) = met((1, 2), timeout=0.5)
    assert isinstance(alone, RunError) and "process 0 did not come in time" in str(alone)
    assert time.monotonic() - began < 15


def test_whoever_else_calls_is_no_process():
    coordinator = address()
    host, port = coordinator.split(":")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(meet, coordinator, 2, 0, 20.0)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"process_id": "x"}\n', b""):
            for _ in range(100):
                try:
                    with socket.create_connection((host, int(port)), timeout=5) as other:
                        other.sendall(words)
                    break
                except OSError:
                    time.sleep(0.05)
        meet(coordinator, 2, 1, 20.0)
        first.result()


def test_a_port_in_use_and_a_host_that_is_not_there_are_told():
    with socket.create_server(("", 0)) as taken:
        with pytest.raises(UserError, match="process 0 cannot listen there"):
            meet(f"127.0.0.1:{taken.getsockname()[1]}", 2, 0, 5.0)
    with pytest.raises(UserError, match=r"--coordinator nowhere\.invalid:1: no such host"):
        meet("nowhere.invalid:1", 2, 1, 5.0)
