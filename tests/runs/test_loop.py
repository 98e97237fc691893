"""The whole loop on digits: what it writes, and that a cut-off run ends like a straight one."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from compare_runs import assert_same_run, metrics_without_timing
from test_torch_weights import Layers, vgg
from tiny import tiny_config

import collab_jax
from collab_jax import data
from collab_jax._version import __version__
from collab_jax.errors import RunError, UserError
from collab_jax.runs import evaluate, loop
from collab_jax.runs.checkpoint import Checkpointer
from collab_jax.runs.result import new_results, update_results
from collab_jax.runs.signals import Interrupted
from collab_jax.training.batches import Feed
from collab_jax.training.evaluation import Evaluation


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("straight")
    result = loop.run(tiny_config(checkpoint__every_steps=3), run_dir)
    return run_dir, result


class Crash(Exception):
    pass


def at_step(monkeypatch, number, action):
    """Calls an action in place of the dispatch number `number`, counted from 0."""
    dispatched = [0]
    run = Feed.run

    def counted(self, state, inputs):
        dispatched[0] += 1
        if dispatched[0] == number + 1:
            action()
        return run(self, state, inputs)

    monkeypatch.setattr(Feed, "run", counted)


def crash():
    raise Crash


@pytest.mark.smoke
def test_a_run_directory_holds_what_it_should(straight):
    run_dir, result = straight
    names = {path.name for path in run_dir.iterdir()}
    assert {"config.json", "metrics.jsonl", "result.json", "checkpoints"} <= names
    assert json.loads((run_dir / "result.json").read_text()) == result
    lines = metrics_without_timing(run_dir)
    assert [(line["epoch"], line["step"], line["split"]) for line in lines] == [
        (epoch, 5 * epoch, split) for epoch in (1, 2) for split in ("train", "validation", "test")
    ]
    terms = {"loss", "out", "mid", "pull_push", "kernel", "top1_error", "top5_error"}
    assert terms <= set(lines[0])
    test = [line["top1_error"] for line in lines if line["split"] == "test"]
    validation = [line["top1_error"] for line in lines if line["split"] == "validation"]
    assert result["last_test_error"] == test[-1]
    assert result["best_test_error"] == min(test)
    latest = len(validation) - 1 - int(np.argmin(validation[::-1]))
    assert result["val_selected_test_error"] == test[latest]
    assert result["selected_by"] == "validation"


def test_of_epochs_with_one_error_the_latest_is_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluation, "headline", lambda self, top5: 50.0)
    result = loop.run(tiny_config(), tmp_path / "run")
    assert result["best_checkpoint"] == {"step": 10, "epoch": 2, "error": 50.0}
    results = new_results(has_validation=True)
    for epoch, error in enumerate((30.0, 20.0, 10.0, 15.0), start=1):
        test = Evaluation(1.0, error, 0.0, 0.0)
        chosen_by = (9.0, 5.0, 5.0, 6.0)[epoch - 1]
        validation = SimpleNamespace(headline=lambda top5, error=chosen_by: error)
        update_results(results, {"test": test, "validation": validation}, epoch, top5=False)
    assert (results["best_validation_error"], results["val_selected_test_error"]) == (5.0, 10.0)


def test_a_crash_and_a_restart_end_like_a_straight_run(straight, tmp_path, monkeypatch):
    config = tiny_config(checkpoint__every_steps=3)
    for number in (4, 1, 4):  # in the middle of an epoch, just after a restart, in the next epoch
        with monkeypatch.context() as patch:
            at_step(patch, number, crash)
            with pytest.raises(Crash):
                loop.run(config, tmp_path)
    loop.run(config, tmp_path)
    assert_same_run(straight[0], tmp_path)


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_saves_at_the_step_boundary(name, straight, tmp_path, monkeypatch):
    config = tiny_config(checkpoint__every_steps=3)
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.Signals[name]))
        with pytest.raises(Interrupted, match=f"{name} after step 7"):
            loop.run(config, tmp_path)
    assert (tmp_path / "checkpoints" / "7" / "manifest.json").exists()
    with monkeypatch.context() as patch:
        at_step(patch, 3, crash)  # steps 8, 9 and 10 are all that is left
        loop.run(config, tmp_path)
    assert_same_run(straight[0], tmp_path)


def test_a_finished_run_is_left_as_it_is(straight, monkeypatch):
    run_dir, result = straight
    monkeypatch.setattr(loop, "made_with", dict)  # A later revision trained nothing of it.
    names = ("metrics.jsonl", "result.json")
    before = [(run_dir / name).read_bytes() for name in names]
    assert loop.run(tiny_config(checkpoint__every_steps=3), run_dir) == result
    assert [(run_dir / name).read_bytes() for name in names] == before
    damaged = {**result, "last_test_error": "none"}
    (run_dir / "result.json").write_text(json.dumps(damaged))
    again = loop.run(tiny_config(checkpoint__every_steps=3), run_dir)
    assert again == {**result, "seconds": again["seconds"]}
    assert 0 < again["seconds"] <= result["seconds"]
    (run_dir / "result.json").write_bytes(before[1])


def test_another_config_is_refused_with_the_keys_that_differ(straight):
    with pytest.raises(UserError, match=r"learning_rate = 0\.02, not 0\.03"):
        loop.run(tiny_config(checkpoint__every_steps=3, learning_rate=0.03), straight[0])
    with pytest.raises(UserError, match="holds a run; expected a new directory"):
        loop.run(tiny_config(checkpoint__every_steps=3), straight[0], resume=False)


def test_a_second_process_is_refused_and_told_who_is_there(straight):
    run_dir = straight[0]
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib, time\n"
            "from collab_jax.runs.directory import hold\n"
            "with hold(pathlib.Path(sys.argv[1])):\n"
            "    print('held', flush=True)\n"
            "    time.sleep(60)\n",
            str(run_dir),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {holder.pid} on "):
            loop.run(tiny_config(checkpoint__every_steps=3), run_dir)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    loop.run(tiny_config(checkpoint__every_steps=3), run_dir)  # a dead holder's lock is void


@pytest.mark.smoke
def test_evaluation_gives_exactly_the_logged_error(straight):
    run_dir, result = straight
    evaluated = evaluate.run(run_dir, checkpoint="last")
    logged = [line for line in metrics_without_timing(run_dir) if line["split"] == "test"][-1]
    for name in ("loss", "top1_error", "top5_error", "calibration_error"):
        assert evaluated[name] == logged[name]
    best = evaluate.run(run_dir)
    assert best["step"] == result["best_checkpoint"]["step"]
    assert best["top1_error"] == result["val_selected_test_error"]
    with np.load(run_dir / "evaluation-best" / "predictions.npz") as predictions:
        wrong = predictions["predictions"] != predictions["labels"]
        assert 100 * wrong.mean() == pytest.approx(best["top1_error"], abs=1e-9)
        class_error = {str(c): 100 * wrong[predictions["labels"] == c].mean() for c in range(10)}
    assert best["class_error"] == pytest.approx(class_error)
    table = (run_dir / "evaluation-best" / "confusion_matrix.csv").read_text().splitlines()
    counts = np.array([row.split(",")[1:] for row in table[1:]], int)
    assert counts.sum() == 360 and np.trace(counts) == (~wrong).sum()


@pytest.mark.smoke
def test_load_gives_inference_alone_and_evaluations_logits(straight):
    run_dir, _ = straight
    restored = collab_jax.load(run_dir)
    model, variables = restored.model, restored.variables
    assert set(variables) == {"params", "batch_stats"}
    images = np.zeros((1, 8, 8, 1), np.float32)
    wanted = jax.eval_shape(model.init, jax.random.key(0), images)
    assert jax.tree.structure(variables) == jax.tree.structure(dict(wanted))
    evaluate.run(run_dir)
    test = data.load("digits").test
    images, labels = test.take(np.arange(len(test)))
    with np.load(run_dir / "evaluation-best" / "predictions.npz") as predictions:
        expected = predictions["logits"]
    logits = jax.jit(model.apply)(variables, restored.normalise(images))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(restored.logits(images), expected, rtol=1e-4, atol=1e-5)
    probabilities = restored.predict(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    logged = json.loads((run_dir / "evaluation-best" / "result.json").read_text())["top1_error"]
    assert 100 * (probabilities.argmax(axis=1) != labels).mean() == pytest.approx(logged)
    assert restored.class_names == tuple("0123456789")
    assert restored.predict(images[:0]).shape == (0, 10)


def test_predictions_of_what_is_no_raw_image_are_refused(straight):
    restored = collab_jax.load(straight[0])
    images = np.zeros((2, 8, 8, 1), np.uint8)
    for wrong, message in (
        (images / 255, r"images: float64 given, expected uint8 \(B, 8, 8, 1\); raw pixels"),
        (images[0], r"images: shape \(8, 8, 1\) given, .*; for one image images\[None\]"),
        (images[:, :4], r"images: shape \(2, 4, 8, 1\) given, expected uint8 \(B, 8, 8, 1\)"),
    ):
        with pytest.raises(UserError, match=message):
            restored.predict(wrong)


def test_a_checkpoint_of_an_earlier_version_loads_and_its_run_does_not_go_on(straight, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(straight[0], run_dir)
    path = run_dir / "config.json"
    path.write_text(path.read_text().replace(f'"version": "{__version__}"', '"version": "0.1.0"'))
    restored, same = (evaluate.load_run(path, "last") for path in (run_dir, straight[0]))
    assert restored.config.version == "0.1.0"
    assert jax.tree.all(jax.tree.map(np.array_equal, restored.variables, same.variables))
    with pytest.raises(UserError, match=r"config\.version = 0\.1\.0 of its run"):
        loop.run(tiny_config(checkpoint__every_steps=3), run_dir)


def test_no_such_checkpoint(straight, tmp_path):
    with pytest.raises(UserError, match=r"no step 4 in .*; expected one of .*10"):
        collab_jax.load(straight[0], "4")
    with pytest.raises(UserError, match="'newest' given; expected best, last or a step"):
        collab_jax.load(straight[0], "newest")
    with pytest.raises(UserError, match=r"config\.json: not found"):
        collab_jax.load(tmp_path)


def test_a_start_from_another_runs_weights(straight, tmp_path):
    config = tiny_config("baseline", init_from=str(straight[0]), steps=1, learning_rate=1e-30)
    loop.run(config, tmp_path)
    best = collab_jax.load(straight[0]).variables
    started = collab_jax.load(tmp_path, "last").variables
    jax.tree.map(np.testing.assert_array_equal, started["params"], best["params"])
    wider = tiny_config("baseline", init_from=str(straight[0]), model__width=0.125)
    with pytest.raises(UserError, match=r"init_from .*: batch_stats/stage1/layer1/norm/mean has"):
        loop.run(wider, tmp_path / "wider")
    with pytest.raises(UserError, match="init_from nowhere: not found"):
        loop.run(tiny_config(init_from="nowhere"), tmp_path / "nowhere")


def test_a_start_from_a_pytorch_models_weights(tmp_path):
    layers = Layers(seed=0)
    vgg(layers, np.zeros((1, 1, 8, 8)), hidden=16)
    path = tmp_path / "weights.npz"
    np.savez(path, **layers.state)
    config = tiny_config("baseline", init_from=str(path), steps=1, learning_rate=1e-30)
    loop.run(config, tmp_path / "run")
    started = collab_jax.load(tmp_path / "run", "last").variables
    np.testing.assert_array_equal(
        started["params"]["classifier"]["fc2"]["kernel"],
        layers.state["classifier.1.weight"].T.astype(np.float32),
    )
    bad = tiny_config("baseline", init_from=str(path), model__name="resnet18")
    with pytest.raises(UserError, match=r"init_from .*weights\.npz: state_dict: "):
        loop.run(bad, tmp_path / "bad")


def damaged_npz(path):
    np.savez(path, weight=np.ones((3, 3)))
    path.write_bytes(path.read_bytes()[:-30])


def pickled_npz(path):
    np.savez(path, weight=np.array([Path("/")], object))


def text_npz(path):
    np.savez(path, weight=np.array(["a", "b"]))


@pytest.mark.parametrize("write", [damaged_npz, pickled_npz, text_npz])
def test_weights_that_cannot_be_read_are_told_and_leave_no_run(write, tmp_path):
    path = tmp_path / "weights.npz"
    write(path)
    with pytest.raises(UserError, match=f"^init_from {path}: ") as caught:
        loop.run(tiny_config("baseline", init_from=str(path)), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_start_from_a_damaged_run_leaves_no_run(straight, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(straight[0], other)
    for path in other.rglob("manifest.json"):
        path.write_text("{}")
    with pytest.raises(UserError, match=f"^init_from {other}: .*damaged"):
        loop.run(tiny_config("baseline", init_from=str(other)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("minutes, expected", [(1e-9, list(range(1, 11))), (1e6, [10])])
def test_checkpoints_by_the_minute(minutes, expected, tmp_path, monkeypatch):
    saved = []
    save = Checkpointer.save

    def noted(self, step, *rest):
        saved.append(step)
        save(self, step, *rest)

    monkeypatch.setattr(Checkpointer, "save", noted)
    # Evaluated once, at the end, so that no epoch is saved for being the best so far.
    cadence = {"checkpoint__every_minutes": minutes, "checkpoint__every_epochs": 0}
    loop.run(tiny_config("baseline", eval_every=5, **cadence), tmp_path)
    assert saved == expected


def test_divergence_names_step_term_and_layer(tmp_path, capsys):
    config = tiny_config("out+mid", learning_rate=1e30, steps=4)
    with pytest.raises(RunError, match=r"not finite at step \d \(epoch 1\): .*(out|mid)") as caught:
        loop.run(config, tmp_path)
    assert re.search(r"gradient of (stage|head|classifier|local)", str(caught.value))
    skipping = tiny_config("out+mid", learning_rate=1e30, steps=4, nonfinite="skip")
    loop.run(skipping, tmp_path / "skip")
    lines = [m for m in metrics_without_timing(tmp_path / "skip") if m["split"] == "train"]
    assert lines[-1]["skipped_steps"] > 0
    assert f"{lines[-1]['skipped_steps']} steps skipped as not finite" in capsys.readouterr().err
    assert np.isfinite(lines[-1]["loss"])


def test_an_epoch_without_one_finite_step_ends_the_run(tmp_path):
    config = tiny_config("baseline", learning_rate=1e30, nonfinite="skip")
    with pytest.raises(RunError, match="^not one step of epoch 2 was finite, .* step 5; a lower"):
        loop.run(config, tmp_path)
    assert not (tmp_path / "result.json").exists()

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [line["epoch"] for line in lines] == [1, 1, 1]


def test_the_first_step_counts_as_no_time_of_training(tmp_path, monkeypatch, capsys):
    at_step(monkeypatch, 0, lambda: time.sleep(4))
    loop.run(tiny_config("baseline", epochs=1), tmp_path / "run")
    first = metrics_of(tmp_path / "run")[0]
    assert first["images_per_second"] > 5 * 64 / 4
    told = capsys.readouterr().err
    assert "\ncompiling the train step\n" in told
    assert int(re.search(r"the train step is compiled \((\d+) s\)", told)[1]) >= 4
    loop.run(tiny_config("baseline", epochs=1, steps=1), tmp_path / "one")
    first = metrics_of(tmp_path / "one")[0]
    assert first["images_per_second"] is None and first["wait_fraction"] is None


def metrics_of(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
