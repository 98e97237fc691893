"""Signals: before training, the first one, the second one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from collab_jax.interrupt import StopSignals

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_before_training_the_process_ends_with_the_same_code(name):
    program = (
        "import os, signal\nfrom collab_jax.interrupt import stop_at_once\n"
        f"with stop_at_once():\n    os.kill(os.getpid(), signal.{name})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 75
    assert done.stderr == f"stopped by {name} before training; the same command starts again\n"


def test_the_first_is_noted_and_the_second_ends_the_process():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received == signal.SIGUSR1
    program = (
        "import os, signal\nfrom collab_jax.interrupt import StopSignals\n"
        "with StopSignals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, b"on\n")
