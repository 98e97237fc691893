"""A study file and the program that its runs start."""

import sys

import pytest
from stubbed import HERE, REPOSITORY, STUDY

from collab_jax.study import scheduler


@pytest.fixture
def study(tmp_path):
    """Writes a study file and returns the program's arguments."""

    def write(*methods, seeds=(0,), pictures=False):
        file = tmp_path / "tiny.py"
        file.write_text(STUDY.format(methods=methods, seeds=seeds, pictures=pictures))
        return ["--study", str(file), "--out", str(tmp_path / "out")]

    return write


@pytest.fixture
def stub(monkeypatch):
    """Runs by a program that trains nothing."""

    def command(run):
        return [sys.executable, str(HERE / "stub_launch.py"), *run.arguments]

    monkeypatch.setattr(scheduler, "interpreter_command", command)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
