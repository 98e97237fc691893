"""Several seeds in one program: each computes what its solo run computes, and leaves its files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compare_runs import metrics_without_timing
from tiny import tiny_config

from collab_jax.errors import UserError
from collab_jax.runs import loop, seeds
from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps
from collab_jax.runs.signals import Interrupted, StopSignals

PROGRAM = Path(__file__).with_name("seeds_steps.py")


def small(seed, **overrides):
    return tiny_config("out", seed=seed, epochs=3, **overrides)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance"), [("float32", 1, 2e-3), ("float64", 5, 1e-9)]
)
def test_each_seed_computes_what_it_computes_alone(dtype, steps, tolerance, tmp_path):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path / "x"), dtype, str(steps), "3,5"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for number in range(2):
        together, alone = (
            dict(np.load(tmp_path / f"x-{which}-{number}.npz")) for which in ("together", "alone")
        )
        assert together.keys() == alone.keys() and len(alone) > 200
        for name, value in alone.items():
            scale = np.abs(value.astype(np.float64)).max(initial=0.0)
            np.testing.assert_allclose(
                together[name],
                value,
                rtol=tolerance,
                # What a later mean takes off again has a gradient of rounding alone.
                atol=tolerance * scale + (1e-13 if dtype == "float64" else 1e-6),
                err_msg=name,
            )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    workdirs = [folder / f"seed-{seed}" for seed in (1, 2)]
    seeds.run([small(1), small(2)], workdirs)
    return workdirs


@pytest.mark.slow
def test_each_leaves_what_its_solo_run_leaves(trained, tmp_path):
    for seed, workdir in zip((1, 2), trained, strict=True):
        alone = tmp_path / str(seed)
        result = loop.run(small(seed), alone)
        own = json.loads((workdir / "result.json").read_text())
        assert own.keys() == result.keys() and own["seed"] == seed
        assert (workdir / "config.json").read_text() == (alone / "config.json").read_text()
        for ours, theirs in zip(
            metrics_without_timing(workdir), metrics_without_timing(alone), strict=True
        ):
            assert ours.keys() == theirs.keys()
            assert (ours["step"], ours["split"]) == (theirs["step"], theirs["split"])
        first = metrics_without_timing(workdir)[0]
        assert first["loss"] == pytest.approx(metrics_without_timing(alone)[0]["loss"], rel=0.05)


@pytest.mark.slow
def test_a_cut_off_group_goes_on_and_ends_alike(trained, tmp_path, monkeypatch):
    workdirs = [tmp_path / f"seed-{seed}" for seed in (1, 2)]
    call, calls = seeds.SeedsStep.__call__, []

    def stop_at_seven(self, state, indices):
        calls.append(1)
        if len(calls) == 7:
            group[0].received = 15
        return call(self, state, indices)

    group = []
    enter = StopSignals.__enter__
    monkeypatch.setattr(StopSignals, "__enter__", lambda self: group.append(self) or enter(self))
    monkeypatch.setattr(seeds.SeedsStep, "__call__", stop_at_seven)
    with pytest.raises(Interrupted, match="after step 7, which is saved"):
        seeds.run([small(1), small(2)], workdirs)
    monkeypatch.undo()
    seeds.run([small(1), small(2)], workdirs)
    for cut, straight in zip(workdirs, trained, strict=True):
        assert metrics_without_timing(cut) == metrics_without_timing(straight)


@pytest.mark.slow
def test_what_one_seed_wrote_before_a_kill_is_taken_back_and_no_finished_run(trained, tmp_path):
    """A kill between two seeds' checkpoints; then a seed that is far behind finished ones."""
    workdirs = [tmp_path / workdir.name for workdir in trained]
    for copy, workdir in zip(workdirs, trained, strict=True):
        shutil.copytree(workdir, copy)
    before = [complete_steps(checkpoint_dir(copy)) for copy in workdirs]
    assert [steps[-2:] for steps in before] == [[10, 15], [10, 15]]
    shutil.rmtree(checkpoint_dir(workdirs[1]) / "15")
    told = "the runs stand at steps 15, 10; expected one and the same"
    with pytest.raises(UserError, match=told):
        seeds.run([small(1), small(2)], workdirs)
    assert complete_steps(checkpoint_dir(workdirs[0])) == before[0]
    for copy in workdirs:
        (copy / "result.json").unlink()
    seeds.run([small(1), small(2)], workdirs)
    for copy, straight in zip(workdirs, trained, strict=True):
        assert metrics_without_timing(copy) == metrics_without_timing(straight)
    # A seed that stands at its beginning and one that is two checkpoints on.
    (workdirs[0] / "result.json").unlink()
    shutil.rmtree(workdirs[1])
    with pytest.raises(UserError, match="the runs stand at steps 15, 0"):
        seeds.run([small(1), small(2)], workdirs)
    assert complete_steps(checkpoint_dir(workdirs[0])) == before[0]


def test_what_cannot_be_trained_together_is_refused(tmp_path):
    for one, other, message in (
        (small(1), small(1), "--seeds 1,1: expected each seed once"),
        (small(1), small(2, learning_rate=0.5), "differ in their seed alone"),
        (small(1, data__resident="never"), small(2, data__resident="never"), "data.resident"),
    ):
        with pytest.raises(UserError, match=message):
            seeds.run([one, other], [tmp_path / "a", tmp_path / "b"])
    assert not list(tmp_path.iterdir())
