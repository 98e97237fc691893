"""A run directory, and a command line without what it starts."""

import sys
import types
from pathlib import Path

import pytest

from collab_jax import cli, runs
from collab_jax import config as config_lib


@pytest.fixture
def calls(monkeypatch):
    """Training and evaluation replaced by a record of how they are called."""
    record = []

    def train(config, workdir, *, resume=True, profile=None):
        record.append(("train", config.method, Path(workdir), resume))
        return {}

    def evaluate(workdir, *, checkpoint="best", config=None, output=None):
        record.append(("eval", config.method, Path(workdir), checkpoint))
        return {
            "step": 7,
            "top1_error": 2.5,
            "top5_error": 0.0,
            "loss": 0.125,
            "images": 360,
            "data": "digits",
        }

    for name, run in (("loop", train), ("evaluate", evaluate)):
        module = types.ModuleType(f"collab_jax.runs.{name}")
        module.__dict__["run"] = run
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(runs, name, module, raising=False)
    return record


@pytest.fixture
def run_dir(tmp_path):
    """A run directory of out+mid on digits with 3 epochs."""
    config = cli.parse(["--config", "digits_vgg16:out+mid", "--config.epochs=3"]).config
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(config_lib.to_json(config))
    return folder
