"""Traces of steps: which steps they hold, what their operations are called, and refusals."""

import gzip
import json

import pytest
from test_loop import Crash, at_step, crash
from tiny import tiny_config

from collab_jax import cli
from collab_jax.errors import UserError
from collab_jax.runs import loop
from collab_jax.runs.profiling import Profiler, scope_of


@pytest.mark.parametrize(
    ("op_name", "scope"),
    [
        ("jit(run)/jvp(trunk)/Network/stage1/layer1/conv/conv_general_dilated", "trunk"),
        ("jit(run)/transpose(jvp(trunk))/Network/stage1/layer1/norm/mul", "trunk (backward)"),
        ("jit(run)/jvp(mid)/heads/LocalHeads/layer1_conv/add", "mid/heads"),
        ("jit(run)/transpose(jvp(mid))/heads/LocalHeads/add", "mid/heads (backward)"),
        (
            "jit(run)/jvp(trunk)/Network/layer1/jvp(collab_read_mid)/LocalHeads.of_layer/add",
            "mid/heads",
        ),
        (
            "jit(run)/transpose(jvp(trunk))/Network/checkpoint/transpose(jvp(collab_read_pull_push))/mul",
            "pull_push/heads (backward)",
        ),
        ("jit(run)/jvp(trunk)/jvp(collab_read_both)/heads/add", "both/heads"),
        (
            "jit(step)/transpose(jvp(jvp()))/checkpoint/trunk/Net/transpose(jvp(collab_read_mid))/mul",
            "mid/heads (backward)",
        ),
        (
            "jit(step)/transpose(jvp(jvp()))/checkpoint/rematted_computation/trunk/Net/add",
            "trunk (backward)",
        ),
        ("jit(run)/jvp(trunk)/Network/read_out/add", "trunk"),
        ("jit(run)/jvp(mid)/collab_read_more/add", "mid"),
        ("jit(run)/vmap(augment)/gather", "augment"),
        ("jit(run)/jit(_threefry_split)/train_step/while/body/add", "train_step"),
        ("jit(run)/jvp()/add", ""),
        ("jit(run)/add", ""),
        ("state.params['stage1']['layer1']", ""),
        ("", ""),
    ],
)
def test_the_scope_is_the_named_part_of_the_step(op_name, scope):
    assert scope_of(op_name) == scope


def traces(run_dir):
    """Every trace's events, as Perfetto reads them, oldest first."""
    for path in sorted((run_dir / "profile").glob("plugins/profile/*/perfetto_trace.json.gz")):
        assert list(path.parent.glob("*.xplane.pb")), "TensorBoard reads this file"
        with gzip.open(path) as file:
            yield json.load(file)["traceEvents"]


def steps_of(events):
    return {int(event["args"]["step_num"]) for event in events if event.get("name") == "train"}


@pytest.mark.slow
def test_traces_hold_the_absolute_steps_and_name_each_part(tmp_path, monkeypatch):
    config = tiny_config(checkpoint__every_steps=3, epochs=1)
    with monkeypatch.context() as patch:
        at_step(patch, 3, crash)  # within the trace
        with pytest.raises(Crash):
            loop.run(config, tmp_path, profile=(1, 9))
    (events,) = traces(tmp_path)
    assert steps_of(events) == {1, 2, 3}
    operations = [event for event in events if "hlo_op" in event.get("args", {})]
    scopes = {event["args"]["scope"] for event in operations if "scope" in event["args"]}
    parts = {"trunk", "out", "mid", "mid/heads", "pull_push", "pull_push/heads"}
    assert {f"{part}{way}" for part in parts for way in ("", " (backward)")} <= scopes
    assert {"augment", "optimizer"} <= scopes
    assert any(scope.startswith("kernel") for scope in scopes)
    for event in operations:
        if "scope" in event["args"]:
            assert event["name"].startswith(event["args"]["scope"] + ": ")
    in_trunk = [e["dur"] for e in operations if e["args"].get("scope", "").startswith("trunk")]
    assert len(in_trunk) > 100 and sum(in_trunk) > 0

    loop.run(config, tmp_path, profile=(4, 5))  # goes on from step 3
    _, events = traces(tmp_path)
    assert steps_of(events) == {4}
    with pytest.warns(UserWarning, match="steps=1:4: the run goes on from step 5, no trace"):
        loop.run(config, tmp_path, profile=(1, 4))


def test_steps_that_the_run_has_not_are_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(UserError, match=r"steps=10:20: the run has the steps 0 to 9"):
        loop.run(tiny_config(), tmp_path / "run", profile=(10, 20))
    assert not (tmp_path / "run").exists()
    Profiler(tmp_path, (9, 20), total_steps=10)


@pytest.mark.parametrize(
    "text",
    ["", "10:20", "steps", "steps=", "steps=10", "steps=20:10", "steps=5:5", "steps=-1:3"]
    + ["steps=1:2:3", "steps=a:b", "steps=1.5:3", "steps=1:٣", f"steps=0:{'9' * 30}", "epochs=1:2"],
)
def test_malformed_ranges_are_refused(text):
    with pytest.raises(UserError, match="expected steps=FIRST:END, such as steps=10:20") as caught:
        cli.parse(["--config", "digits_vgg16", f"--profile={text}"])
    assert str(caught.value).isprintable()


def test_the_flag_reaches_training(monkeypatch):
    arguments = ["--config", "digits_vgg16", "--profile", "steps=10:20"]
    assert cli.parse(arguments).profile == (10, 20)
    assert cli.parse(arguments[:2]).profile is None
    with pytest.raises(UserError, match="expected only with --mode train"):
        cli.parse([*arguments, "--mode=eval"])
    given = []
    monkeypatch.setattr(loop, "run", lambda *_, profile, **__: given.append(profile))
    assert cli.main(arguments) == 0
    assert given == [(10, 20)]
