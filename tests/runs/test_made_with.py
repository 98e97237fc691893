"""What a result says of the machine and the programs that it was made with."""

import os
import re
import signal
from pathlib import Path

import jax
import pytest
from tiny import tiny_config

from collab_jax.runs import loop
from collab_jax.runs.made_with import made_with
from collab_jax.runs.signals import Interrupted
from collab_jax.training.batches import Feed


def test_versions_devices_processor_and_threads(monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    found = made_with()
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["device"].endswith(" x cpu")
    names = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    assert found["processor"] and (not names or found["processor"] in names)
    assert found["threads"] == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("text", "threads"), [("3", 3), ("0", None), ("", None), ("many", None)])
def test_threads_are_as_many_as_xla_is_told(text, threads, monkeypatch):
    monkeypatch.setenv("NPROC", text)
    assert made_with()["threads"] == (threads or len(os.sched_getaffinity(0)))


def test_a_result_is_made_with_what_trained_it_last(tmp_path, monkeypatch):
    def made(text):
        return lambda: {"git_revision": text, "processor": text, "threads": 1}

    def stopped(self, state, inputs, run=Feed.run):
        os.kill(os.getpid(), signal.SIGTERM)
        return run(self, state, inputs)

    config = tiny_config("baseline", epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "made_with", made("first"))
        patch.setattr(Feed, "run", stopped)
        with pytest.raises(Interrupted):
            loop.run(config, tmp_path)
    monkeypatch.setattr(loop, "made_with", made("second"))
    assert (result := loop.run(config, tmp_path))["processor"] == "second"
    monkeypatch.setattr(loop, "made_with", made("third"))
    assert loop.run(config, tmp_path) == result
    (tmp_path / "result.json").unlink()
    assert loop.run(config, tmp_path)["git_revision"] == "second"
