"""A run goes on from another with other values."""

import json

import numpy as np
import pytest
from compare_runs import assert_same_run, last_state, metrics_without_timing
from hypothesis import given
from hypothesis import strategies as st
from test_torch_weights import Layers, vgg
from tiny import tiny_config

from collab_jax.errors import UserError
from collab_jax.runs import loop
from collab_jax.runs.start import same_images_seen

CUT = 8
"""Steps of the run to go on from: it ends in the middle of its second epoch."""


def config(**overrides):
    return tiny_config("mid", model__width=0.03125, **overrides)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("begun")
    loop.run(config(steps=CUT, epochs=3), run_dir)
    return run_dir


def test_the_same_values_end_with_the_bits_of_an_undisturbed_run(begun, tmp_path):
    went_on, undisturbed = tmp_path / "went_on", tmp_path / "undisturbed"
    loop.run(config(continue_from=str(begun)), went_on)
    loop.run(config(), undisturbed)
    metrics = undisturbed / "metrics.jsonl"
    lines = [line for line in metrics.read_text().splitlines() if json.loads(line)["epoch"] == 2]
    metrics.write_text("\n".join(lines) + "\n")
    for run_dir in (went_on, undisturbed):  # the first epoch's results are not the new run's
        result = json.loads((run_dir / "result.json").read_text())
        (run_dir / "result.json").write_text(json.dumps({"seed": result["seed"]}))
    assert_same_run(went_on, undisturbed)


def test_another_batch_size_goes_on_at_the_same_images(begun, tmp_path):
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    step, state = last_state(begun)
    assert step == CUT
    loop.run(config(continue_from=str(begun), batch_size=32, learning_rate=1e-30), tmp_path)
    number, after = last_state(tmp_path)
    assert number == 2 * 10  # two epochs of 320 images in batches of 32
    counts = [array for name, array in after.items() if name.endswith("['count']")]
    assert counts and all(int(count) == number for count in counts)
    for name, array in state.items():
        if name.startswith(("['params']", "['heads']")):
            np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert int(after["['sums']['steps']"]) == 20 - 2 * CUT
    lines = metrics_without_timing(tmp_path)
    assert {(line["epoch"], line["step"]) for line in lines} == {(2, 20)}
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before


def test_a_change_in_place_is_refused_and_told_the_way(begun):
    with pytest.raises(UserError, match=r"batch_size = 64, not 32.*continue_from="):
        loop.run(config(steps=CUT, epochs=3, batch_size=32), begun)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"seed": 1}, r"config\.seed = 1; expected 0"),
        ({"data__validation": 80}, r"config\.data\.validation = 80"),
        ({"mid__head_width": 3}, r"heads/mid/.* has shape \(4,\); expected \(3,\)"),
        ({"momentum": 0.0}, r"opt_state/.*trace.*; expected None"),
        ({"epochs": 1}, r"step 8 of batches of 64; expected less than 5"),
        ({"steps": CUT}, r"step 8 of batches of 64; expected less than 8"),
    ],
)
def test_a_run_that_cannot_go_on_so_is_refused(begun, tmp_path, overrides, message):
    with pytest.raises(UserError, match=f"^continue_from {begun}: .*{message}"):
        loop.run(config(**{"continue_from": str(begun), **overrides}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_in_half_precision_are_trained_in_float32(tmp_path):
    layers = Layers(seed=0)
    vgg(layers, np.zeros((1, 1, 8, 8)), 0)
    half = {
        name: value.astype(np.float16) if value.ndim else value
        for name, value in layers.state.items()
    }
    np.savez(tmp_path / "half.npz", **half)
    own = {"model__width": 0.0625, "model__classifier_width": 0, "steps": 1}
    started = tiny_config("baseline", init_from=str(tmp_path / "half.npz"), **own)
    loop.run(started, tmp_path / "run")
    _, state = last_state(tmp_path / "run")
    kinds = {array.dtype.name for name, array in state.items() if name.startswith("['params']")}
    assert kinds == {"float32"}


def test_a_source_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="^continue_from nowhere: .*not found"):
        loop.run(config(continue_from="nowhere"), tmp_path / "run")
    with pytest.raises(UserError, match=r"continue_from = 'a'.*expected empty"):
        config(continue_from="a", init_from="b")


@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 500), st.data())
def test_no_image_is_passed_over_and_less_than_a_batch_is_seen_again(old, new, more, draw):
    num_train = max(old, new) + more
    per_epoch, new_per_epoch = num_train // old, num_train // new
    step = draw.draw(st.integers(0, 5 * per_epoch))
    epoch, begun = divmod(step, per_epoch)
    new_epoch, new_begun = divmod(same_images_seen(step, old, new, num_train), new_per_epoch)
    assert new_epoch == epoch
    assert new_begun * new <= begun * old
    again = begun * old - new_begun * new
    assert again < new or new_begun == new_per_epoch - 1
    assert same_images_seen(step, old, old, num_train) == step
