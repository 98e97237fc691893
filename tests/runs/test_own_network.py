"""A network of the user's own, trained by the whole trainer."""

import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny_config

import collab_jax
from collab_jax import cli
from collab_jax import config as config_lib
from collab_jax.config.own_model import check_file
from collab_jax.errors import UserError
from collab_jax.models.own import create_own
from collab_jax.runs import evaluate, export, loop
from collab_jax.runs.load_model import load as load_exported
from collab_jax.study.spec import Cell
from collab_jax.study.task import cell_run

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "own_model.md"
NET = """
import flax.linen as nn


class Net(nn.Module):
    num_classes: int
    rate: float = 0.5

    @nn.compact
    def __call__(self, images, train):
        x = images
        for filters in (4, 8):
            x = nn.Conv(filters, (3, 3), strides=2)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.relu(nn.Dense(16)(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x)


def make(num_classes):
    return Net(num_classes)


def sure(num_classes):
    return Net(num_classes, rate=0.0)


def wide(num_classes):
    return Net(num_classes + 1)


class Plain(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, **options):
        return nn.Dense(self.num_classes)(images.reshape(images.shape[0], -1))


plain = Plain


class Counting(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        self.variable("cache", "calls", lambda: 0.0)
        return nn.Dense(self.num_classes)(images.mean((1, 2)))


counting = Counting


class Broken(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(self.num_classes)(images @ images)


broken = Broken


class Early(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dropout(0.5, deterministic=not train)(images.reshape(images.shape[0], -1))
        return nn.Dense(self.num_classes)(nn.relu(nn.Dense(8)(x)))


early = Early


class Branched(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(self.num_classes, name="branch_a")(images.mean((1, 2)))


branched = Branched


def not_a_module(num_classes):
    return num_classes


def failing(num_classes):
    raise RuntimeError("no such weights")
"""
LAYERS = {"model__layers": "**/Conv_*", "model__then": "**/BatchNorm_*"}
KERNELS = {"kernel__layers": "Conv_*,!Conv_0"}


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def own_config(path, method="baseline", function="make", **overrides):
    overrides = {"steps": 2, "data__train_examples": 128, "data__validation": 0, **overrides}
    return tiny_config(method, model__name=f"{path}:{function}", **overrides)


def arrays(run_dir):
    restored = collab_jax.load(run_dir, "last")
    return jax.tree.map(np.asarray, restored.variables)


@pytest.mark.parametrize(
    ("method", "overrides", "terms"),
    [
        ("baseline", {}, ("cross_entropy",)),
        ("out", {}, ("out",)),
        ("out", {"model__split_at": "Dense_0"}, ("out",)),
        pytest.param("multi_instance", {"multi_head__heads": 2}, ("out",), marks=pytest.mark.slow),
        pytest.param(
            "out+mid+pull_push+kernel",
            {**LAYERS, **KERNELS, "micro_batches": 2},
            ("out", "mid", "pull_push", "kernel"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "mid+auxiliary+r_drop+decov",
            {**LAYERS, "auxiliary__layers": (0, 1), "model__split_at": "Dense_0"},
            ("cross_entropy", "mid", "auxiliary", "r_drop", "decov"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["baseline", "out", "split", "multi_instance", "all", "rivals"],
)
def test_every_method_but_tree_trains_it(net, tmp_path, method, overrides, terms):
    config = own_config(net, method, **overrides)
    loop.run(config, tmp_path / "run")
    restored = collab_jax.load(tmp_path / "run", "last")
    assert set(restored.variables["params"]) == {
        "Conv_0", "BatchNorm_0", "Conv_1", "BatchNorm_1", "Dense_0", "Dense_1",
    }  # fmt: skip
    assert restored.step == 2
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert all(np.isfinite(line[term]) and line[term] > 0 for term in terms)


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_bits_and_refuses_a_changed_file(net, tmp_path):
    config = own_config(net, "mid", **LAYERS, steps=3, checkpoint__every_steps=1)
    loop.run(config, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    loop.run(replace(config, steps=2), stopped)
    (stopped / "result.json").unlink()
    text = (stopped / "config.json").read_text()
    (stopped / "config.json").write_text(text.replace('"steps": 2', '"steps": 3'))
    loop.run(config, stopped)
    found, expected = arrays(stopped), arrays(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, found, expected)

    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    restored = collab_jax.load(stopped, "last")
    probabilities = restored.predict(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    export.run(stopped, checkpoint="last")
    exported = load_exported(stopped / "exported-last")(images)
    np.testing.assert_allclose(exported, restored.logits(images), rtol=1e-4, atol=1e-5)
    assert evaluate.run(stopped, checkpoint="last")["images"] == 360

    net.write_text(NET + "# changed")
    changed = "/net.py:make': expected the file as it was when the run began"
    for refused in (
        lambda: collab_jax.load(stopped),
        lambda: evaluate.run(stopped),
        lambda: export.run(stopped),
    ):
        with pytest.raises(UserError, match=changed):
            refused()
    with pytest.raises(UserError, match=r"another config: model.sha256 = \w{64}, not \w{64}"):
        loop.run(config, stopped)


def refused(path, function, tmp_path, method="baseline", **overrides):
    with pytest.raises(UserError) as error:
        loop.run(own_config(path, method, function, **overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    message = str(error.value)
    assert f"{path}:{function}"[-40:] in message or "config." in message
    return message


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("missing", "has no function 'missing'"),
        ("failing", "failing(10) raised RuntimeError: no such weights"),
        ("not_a_module", "returned int; expected a flax.linen.Module"),
        ("wide", "returned (2, 11) for 2 images; expected logits (2, 10)"),
        ("counting", "has variables in cache; expected params and batch_stats alone"),
        ("broken", "with images float32 (2, 8, 8, 1), it raised TypeError"),
    ],
)
def test_what_the_function_gives_is_checked_before_training(net, tmp_path, function, expected):
    assert expected in refused(net, function, tmp_path)


@pytest.mark.parametrize(
    ("method", "function", "overrides", "expected"),
    [
        ("mid", "make", {"model__layers": "**/Cnv_*"}, "there are 'Conv_0', 'BatchNorm_0'"),
        ("mid", "make", {}, "name its layers by layers="),
        ("mid", "make", {"model__layers": "Conv_*,,"}, "has an empty segment"),
        ("mid", "make", {**LAYERS, "model__then": "Dense_0"}, "right before it"),
        ("kernel", "make", {"kernel__layers": "Cnv_*"}, "there are Conv_0, Conv_1, Dense_0"),
        ("out", "make", {"model__split_at": "Conv_*"}, "expected one module that is called once"),
        ("out", "sure", {}, "draws no random numbers in training"),
        ("out", "early", {"model__split_at": "Dense_0"}, "no random number is drawn"),
        (
            "out",
            "early",
            {"model__split_at": "Dropout_0"},
            "no random number is drawn",
        ),
        ("out", "make", {"model__split_at": "Dropout_0"}, "no random number is drawn"),
        ("r_drop", "sure", {}, "branches of r_drop differ"),
        ("multi_instance", "branched", {}, "has a module 'branch_a'"),
    ],
)
def test_selections_that_miss_are_refused_before_training(
    net, tmp_path, method, function, overrides, expected
):
    assert expected in refused(net, function, tmp_path, method, **overrides)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.layers", "Cnv_*"),
        ("model.layers", "Conv_*,/"),
        ("model.layers", "!Conv_0"),
        ("model.then", "Dense_0"),
        ("model.then", "Norm_*"),
        ("model.then", "BatchNorm_*//"),
        ("model.split_at", "Conv_*"),
        ("model.split_at", "Conv_*//"),
        ("model.split_at", "Conv_7"),
        ("kernel.layers", "!Conv_0"),
        ("kernel.layers", "Conv_0//"),
        ("kernel.layers", "Cnv_0"),
    ],
)
def test_the_key_that_is_wrong_is_named(net, tmp_path, key, value):
    overrides = {**LAYERS, **KERNELS, "model__split_at": "Dense_0"}
    overrides[key.replace(".", "__")] = value
    message = refused(net, "make", tmp_path, "out+mid+kernel", **overrides)
    assert f"config.{key} = {value!r}: " in message
    assert message.count("config.") == 1


def test_a_file_is_executed_once_for_its_content(net, tmp_path, monkeypatch):
    executed = []
    monkeypatch.setattr("builtins.executed", executed, raising=False)
    net.write_text(NET + "executed.append(1)\n")
    first, second = (type(create_own(f"{net}:make", 10)) for _ in range(2))
    assert first is second and executed == [1]
    # Of the same size, and of the same second as far as a file system tells.
    before = net.stat()
    net.write_text(NET.replace("(4, 8)", "(8, 4)") + "executed.append(2)\n")
    os.utime(net, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert type(create_own(f"{net}:make", 10)) is not first and executed == [1, 2]
    assert not (tmp_path / "__pycache__").exists()
    net.write_text("raise RuntimeError('no weights')\n")
    for _ in range(2):
        with pytest.raises(UserError, match="net.py raised RuntimeError: no weights"):
            create_own(f"{net}:make", 10)


def test_a_changed_file_is_named_however_long_its_path_is(tmp_path):
    folder = tmp_path / ("a" * 100) / ("b" * 100)
    folder.mkdir(parents=True)
    config = own_config(folder / "net.py", model__sha256="0" * 64)
    (folder / "net.py").write_text(NET)
    with pytest.raises(UserError, match="bbb/net.py:make': expected the file as it was when the"):
        check_file(config)


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert "net.py not found" in refused(tmp_path / "net.py", "make", tmp_path)


def test_the_command_line_trains_and_evaluates_it(net, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = {
        "model.name": "net.py:plain",
        "data.train_examples": 128,
        "data.validation": 0,
        "batch_size": 64,
        "steps": 1,
        "log.tensorboard": "false",
        "model.width": 0.5,
    }
    line = ["--config=digits_vgg16:baseline", *(f"--config.{k}={v}" for k, v in flags.items())]
    command = cli.parse(line)
    digest = command.config.model.sha256
    assert len(digest) == 64
    assert "config.model.width has no effect with model net.py:plain" in command.warnings
    assert cli.main([*line, "--workdir=run"]) == 0
    assert cli.main(["--mode=eval", "--workdir=run"]) == 0
    capsys.readouterr()
    before = command.workdir
    net.write_text(NET + "# changed")
    assert cli.parse(line).workdir == before
    assert cli.main(["--mode=eval", "--workdir=run"]) == 2
    assert "put that file back" in capsys.readouterr().err
    assert cli.main([*line, "--workdir=run"]) == 2
    assert f"model.sha256 = {digest}, not" in capsys.readouterr().err


def test_a_study_knows_the_file_of_its_cells(net, tmp_path):
    cell = Cell("own", "baseline", "digits_vgg16", overrides={"model.name": f"{net}:make"})
    config = cell_run(cell, 0, tmp_path).config
    assert config is not None and config == config_lib.with_file(config)
    net.write_text(NET + "# changed")
    changed = cell_run(cell, 0, tmp_path)
    assert config_lib.conflict_text(config, changed.config).startswith("model.sha256 = ")


@pytest.mark.slow
def test_the_guides_network_trains_by_the_guides_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = GUIDE.read_text().split("## By launch.py")[1]
    (tmp_path / "net.py").write_text(re.findall(r"```python\n(.*?)```", guide, re.S)[0])
    command = re.findall(r"```sh\npython launch.py (.*?)```", guide, re.S)[0]
    command = command.replace("configs/cifar10_vgg16.py", "digits_vgg16").replace("\\\n", " ")
    line = shlex.split(command)
    shorter = ["--config.steps=1", "--config.log.tensorboard=false", "--workdir=run"]
    assert cli.main([*line, *shorter]) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert {"out", "mid", "pull_push"} <= set(json.loads(lines[0]))
