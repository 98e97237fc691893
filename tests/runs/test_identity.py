"""A run knows its data by content, and its checkpoints by seed, config and step."""

import json
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny import tiny_config

from collab_jax import config as config_lib
from collab_jax import data
from collab_jax.errors import RunError, UserError
from collab_jax.runs import evaluate, loop
from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps, read_checkpoint
from collab_jax.runs.load import load_run
from collab_jax.runs.manifest import write_manifest

CLASSES = ["bird", "cat", "dog", "fly"]


def saved(path, seed=0, side=8, names=CLASSES):
    rng = np.random.default_rng(seed)
    labels = np.arange(64) % len(names)
    np.savez(
        path,
        x_train=rng.integers(0, 256, (64, side, side, 1), np.uint8),
        y_train=labels,
        x_test=rng.integers(0, 256, (24, side, side, 1), np.uint8),
        y_test=labels[:24],
        class_names=np.array(names),
    )
    return str(path)


def config(name, **overrides):
    own = {"data__train_examples": 0, "data__validation": 0, "batch_size": 16, "epochs": 1}
    return tiny_config("baseline", **{"data__name": name, **own, **overrides})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    name = saved(folder / "t.npz")
    result = loop.run(config(name), folder / "run")
    return folder / "run", name, result


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run whose data's file may be changed, by a config with its path."""
    run_dir = tmp_path / "run"
    shutil.copytree(trained[0], run_dir)
    name = str(shutil.copy(trained[1], tmp_path / "t.npz"))
    path = run_dir / "config.json"
    path.write_text(path.read_text().replace(trained[1], name))
    return run_dir, name


def records(run_dir):
    directory = checkpoint_dir(run_dir)
    for step in complete_steps(directory):
        yield directory / str(step), read_checkpoint(directory, step, lambda record: {})[1]


def rewrite(path, record):
    shutil.rmtree(path / "record")
    ocp.Checkpointer(ocp.JsonCheckpointHandler()).save(
        path / "record", args=ocp.args.JsonSave(record)
    )
    write_manifest(path)


def test_the_record_and_the_result_carry_the_fingerprint(trained):
    run_dir, name, result = trained
    fingerprint = data.load(name).fingerprint
    assert result["data_fingerprint"] == fingerprint
    assert json.loads((run_dir / "result.json").read_text()) == result
    for path, record in records(run_dir):
        assert record["data"]["fingerprint"] == fingerprint
        assert (record["seed"], str(record["step"])) == (0, path.name)


def test_other_content_at_the_same_path_is_refused(run, tmp_path):
    run_dir, name = run
    recorded = data.load(name).fingerprint[:12]
    saved(name, seed=1)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    started = {
        "resumed": lambda: loop.run(config(name), run_dir),
        "continued": lambda: loop.run(
            config(name, epochs=2, continue_from=str(run_dir)), tmp_path / "next"
        ),
        "evaluated": lambda: evaluate.run(run_dir),
    }
    for start in started.values():
        with pytest.raises(UserError) as caught:
            start()
        found = data.load(name).fingerprint[:12]
        for part in ("data.name", recorded, found, "expected"):
            assert part in str(caught.value)
        assert "\n" not in str(caught.value)
    for path, content in before.items():
        assert path.name == ".lock" or path.read_bytes() == content


def test_the_same_content_goes_on_from_another_path(run, trained, tmp_path):
    run_dir, name = run
    other = str(shutil.move(name, tmp_path / "moved.npz"))
    assert loop.run(config(other), run_dir) == trained[2]
    loop.run(config(other, epochs=2, continue_from=str(run_dir)), tmp_path / "next")
    of_run = config_lib.override(load_run(run_dir, "best").config, {"data.name": other})
    found = evaluate.run(run_dir, config=of_run)
    assert found["top1_error"] == trained[2]["last_test_error"]
    assert [path.name for path in run_dir.glob("evaluation*")] == ["evaluation-best"]


def test_another_name_without_a_checkpoint_is_another_config(run):
    run_dir, name = run
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(UserError, match=r"data\.name = .*, not .*copy\.npz"):
        loop.run(config(str(shutil.copy(name, f"{name}.copy.npz"))), run_dir)


def test_other_data_are_evaluated_under_their_own_name(run, tmp_path):
    run_dir, name = run
    other = saved(tmp_path / "other.npz", seed=1)
    of_run = load_run(run_dir, "best").config
    found = evaluate.run(run_dir, config=config_lib.override(of_run, {"data.name": other}))
    fingerprint = data.load(other).fingerprint
    assert (found["data"], found["data_fingerprint"]) == (other, fingerprint)
    (folder,) = run_dir.glob("evaluation*")
    assert folder.name == f"evaluation-best-on-other.npz-{fingerprint[:8]}"
    assert json.loads((folder / "result.json").read_text()) == found
    own = evaluate.run(run_dir, output=tmp_path / "there" / "deeper")
    assert own["data"] == name and own["loss"] != found["loss"]
    assert (tmp_path / "there" / "deeper" / "evaluation-best" / "predictions.npz").is_file()
    assert list(run_dir.glob("evaluation*")) == [folder]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"side": 12}, r"images \(12, 12, 1\) in 4 classes; expected \(8, 8, 1\) in 4"),
        ({"names": CLASSES[:3]}, r"in 3 classes; expected \(8, 8, 1\) in 4"),
        ({"names": CLASSES[::-1]}, r"class 0 is 'fly'; expected .* 'bird' there"),
    ],
)
def test_data_that_the_network_does_not_fit_are_refused(run, tmp_path, changes, message):
    other = saved(tmp_path / "other.npz", **changes)
    asked = config_lib.override(load_run(run[0], "best").config, {"data.name": other})
    with pytest.raises(UserError, match=message):
        evaluate.run(run[0], config=asked)
    assert not list(run[0].glob("evaluation*"))


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"seed": 1}, "a run of seed 1; expected seed 0"),
        ({"learning_rate": 0.5}, "a run of another config"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(run, tmp_path, overrides, message):
    run_dir, name = run
    loop.run(config(name, **overrides), tmp_path / "other")
    shutil.rmtree(run_dir / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", run_dir / "checkpoints")
    for start in (
        lambda: load_run(run_dir, "last"),
        lambda: loop.run(config(name), run_dir),
    ):
        with pytest.raises(RunError, match=f"checkpoints/4: .* written by {message}"):
            start()
    with pytest.raises(UserError, match=message):
        loop.run(config(name, epochs=2, continue_from=str(run_dir)), tmp_path / "next")


def test_a_renamed_checkpoint_is_refused(run, tmp_path):
    run_dir, name = run
    (run_dir / "checkpoints" / "4").rename(run_dir / "checkpoints" / "999999")
    for start in (lambda: load_run(run_dir, "last"), lambda: loop.run(config(name), run_dir)):
        with pytest.raises(RunError, match="checkpoints/999999: .* written as step 4"):
            start()
    assert (run_dir / "checkpoints" / "999999").is_dir()


def test_a_checkpoint_that_says_nothing_of_itself_still_evaluates(run, trained):
    run_dir, name = run
    for path, record in records(run_dir):
        for key in ("seed", "config", "version", "step"):
            del record[key]
        del record["data"]["fingerprint"]
        rewrite(path, record)
    assert load_run(run_dir, "last").info.fingerprint == ""
    assert evaluate.run(run_dir)["top1_error"] == trained[2]["last_test_error"]
    saved(name, seed=1)
    with pytest.raises(UserError, match="classes, image shape or statistics are not those"):
        evaluate.run(run_dir)


def test_the_hash_of_a_config_is_of_what_may_not_change():
    first = config("a.npz")
    assert config_lib.identity_hash(first) == config_lib.identity_hash(
        config("b.npz", log__every_seconds=9.0, data__dir="/d", steps_per_dispatch=4)
    )
    read = config_lib.from_json(config_lib.to_json(first), "config.json")
    assert config_lib.identity_hash(read) == config_lib.identity_hash(first)
    assert config_lib.identity_hash(config("a.npz", momentum=0.8)) != config_lib.identity_hash(read)
