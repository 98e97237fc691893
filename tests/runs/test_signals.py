"""Signals: before training, the first one, the second one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collab_jax.runs.signals import StopSignals

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"])
def test_before_training_the_process_ends_with_the_same_code(name):
    program = (
        "import os, signal\nfrom collab_jax.runs.signals import stop_at_once\n"
        f"stop_at_once()\nos.kill(os.getpid(), signal.{name})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 75
    assert done.stderr == f"stopped by {name} with nothing to save; the same command starts again\n"


def test_the_first_is_noted_and_the_second_ends_the_process():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received == signal.SIGUSR1
    program = (
        "import os, signal, time\nfrom collab_jax.runs.signals import StopSignals\n"
        "with StopSignals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('on', flush=True)\n"
        "    time.sleep(1.1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)\n    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, b"on\n")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP])
def test_two_within_a_second_are_one_request(second):
    program = (
        "import os, signal, time\nfrom collab_jax.runs.signals import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.02)\n"
        f"    os.kill(os.getpid(), {int(second)})\n    time.sleep(0.3)\n"
        "    print(signals.received)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"%d\n" % signal.SIGTERM), done.stderr


def test_a_hangup_that_nohup_ignores_stays_ignored():
    program = (
        "import os, signal\nfrom collab_jax.runs.signals import StopSignals, stop_at_once\n"
        "stop_at_once()\nwith StopSignals() as signals:\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n    print(signals.received)\n"
    )
    done = subprocess.run(
        ["nohup", sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert (done.returncode, done.stdout) == (0, b"0\n")


def test_the_second_ends_the_process_while_the_main_thread_runs_no_python():
    # As while XLA compiles: one call that takes long and lets other threads run.
    program = (
        "import ctypes\nfrom collab_jax.runs.signals import StopSignals\n"
        "with StopSignals():\n    print('on', flush=True)\n"
        "    libc = ctypes.CDLL(None)\n"
        "    for _ in range(60):\n"
        "        until = ctypes.c_long * 2\n"
        "        rest = until(100, 0)\n"
        "        while libc.nanosleep(ctypes.byref(rest), ctypes.byref(rest)):\n            pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"on\n"
        time.sleep(0.2)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(1.2)
        assert process.wait(20) == 128 + signal.SIGINT


# An interpreter that ends gives back Python's handlers, and a signal's default ends the process.
_ENDING = """
import os, signal, sys
from collab_jax.runs import signals

class Last:
    def __del__(self, kill=os.kill, own=os.getpid()):
        for number in (2, 15, 1):
            kill(own, number)

signals.stop_at_once()
with signals.StopSignals():
    os.kill(os.getpid(), signal.SIGTERM)
signal.raise_signal(signal.SIGINT)
sys.last = Last()
sys.exit(75)
"""


def test_after_a_run_signals_do_not_change_the_exit_code():
    done = subprocess.run([sys.executable, "-c", _ENDING], cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, done.stderr) == (75, b"")
    given_back = _ENDING.replace("signals.stop_at_once()", "")
    given_back = given_back.replace("signal.raise_signal(signal.SIGINT)", "")
    done = subprocess.run([sys.executable, "-c", given_back], cwd=REPOSITORY, capture_output=True)
    # Which of the three ends it depends on the version of Python.
    ended = done.returncode in (-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)
    assert ended, "the test's own signals come too early or too late"


def test_descriptors_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.received == signal.SIGTERM
    deadline = time.monotonic() + 20  # the threads close their ends
    while len(os.listdir("/proc/self/fd")) > before[1] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (signal.getsignal(signal.SIGTERM), len(os.listdir("/proc/self/fd"))) == before
    assert signal.set_wakeup_fd(-1) == -1
