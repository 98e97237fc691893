"""A configuration is checked at the edge, and from there on is a value that no one checks again."""

import json
import sys
from collections import Counter

import pytest

from collab_jax import cli
from collab_jax import config as config_lib
from collab_jax.config import checks, resolve
from collab_jax.runs.directory import hold, open_config


@pytest.fixture
def counted(monkeypatch):
    """How often the functions are called that check, convert, write and read."""
    counts = Counter()

    def count(function):
        def call(*arguments, **keywords):
            counts[function.__name__] += 1
            return function(*arguments, **keywords)

        modules = [m for name, m in sys.modules.items() if name.startswith("collab_jax.")]
        for module in modules:
            if getattr(module, function.__name__, None) is function:
                monkeypatch.setattr(module, function.__name__, call)

    for function in (checks.checked_values, checks.typed, resolve.to_json, resolve.from_json):
        count(function)
    return counts


def test_a_run_is_checked_once_before_its_first_step(counted, tmp_path):
    overrides = ["--config.epochs=2", "--config.model.width=0.5"]
    workdir = tmp_path / "run"
    command = cli.parse(["--config=digits_vgg16:out", *overrides, f"--workdir={workdir}"])
    recipes_own = 12
    assert counted["checked_values"] == 1
    assert counted["typed"] <= len(config_lib.SCHEMA) + len(overrides) + recipes_own
    assert counted["to_json"] == counted["from_json"] == 0
    counted.clear()
    with hold(workdir):
        config = open_config(workdir, command.config, resume=True, steps_per_dispatch=4)
    assert config.steps_per_dispatch == 4
    assert json.loads((workdir / "config.json").read_text())["epochs"] == 2
    assert counted == {"to_json": 1}
    counted.clear()
    with hold(workdir):
        again = open_config(workdir, command.config, resume=True)
    assert again == config
    assert counted["from_json"] == counted["checked_values"] == 1
    assert counted["typed"] == len(config_lib.SCHEMA)
