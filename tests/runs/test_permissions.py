"""Folders that may be read and not written, and files that may not be read."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compare_runs import own_lines
from tiny import tiny_config

from collab_jax import config as config_lib
from collab_jax.runs import loop

REPOSITORY = Path(__file__).resolve().parents[2]
# Root passes over permissions by these two rights.
WITHOUT_RIGHTS = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    if os.geteuid() == 0
    else []
)
CONFIG = {"checkpoint__every_steps": 3, "log__tensorboard": True}
OVERRIDES = [
    "name=tiny", "epochs=2", "batch_size=64", "learning_rate=0.02", "decay_epochs=1",
    "data.train_examples=320", "data.validation=100", "data.flip=false", "data.label_noise=0.1",
    "model.width=0.0625", "model.classifier_width=16", "mid.head_width=4",
    "pull_push.projection_width=4", "checkpoint.every_steps=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    loop.run(tiny_config("baseline", **CONFIG), run_dir)
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy that is given its permissions back, so that it can be removed."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    yield copy
    for folder, _, names in os.walk(tmp_path):
        os.chmod(folder, 0o755)
        for name in names:
            os.chmod(Path(folder, name), 0o644)
        for inner in os.scandir(folder):
            if inner.is_dir():
                os.chmod(inner, 0o755)


def launched(run_dir, *arguments):
    """Exit code and what `launch.py` says, beside a run's summary, without root's rights."""
    command = [*WITHOUT_RIGHTS, sys.executable, "launch.py", f"--workdir={run_dir}", *arguments]
    if "--mode=eval" not in arguments:
        command += ["--config=digits_vgg16", *(f"--config.{change}" for change in OVERRIDES)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    usual = (" ", "collab_jax ", "epoch ", "warning: config.")  # the last: keys of other methods
    stderr = own_lines(done.stderr)
    lines = [line for line in stderr.splitlines() if not line.startswith(usual)]
    return done.returncode, lines


def content(run_dir):
    files = sorted(path for path in run_dir.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_command_line_is_that_of_the_run(finished):
    overrides = {key: value for key, _, value in (text.partition("=") for text in OVERRIDES)}
    config = tiny_config("baseline", **CONFIG)
    asked = config_lib.parse(config_lib.recipe("baseline", {"data.name": "digits"}))
    asked = config_lib.override(asked, overrides)
    assert not config_lib.resume_conflicts(config, asked)


def test_a_folder_that_may_not_be_written(tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    code, lines = launched(folder / "run")
    told = "Permission denied; expected a folder that can be written"
    assert (code, lines) == (2, [f"error: --workdir {folder}/run: {told}"])
    assert not list(folder.iterdir())


def test_a_run_that_may_not_be_written_stays_as_it_is(run_dir):
    (run_dir / "result.json").unlink()
    shutil.rmtree(run_dir / "checkpoints" / "10")
    before = content(run_dir)
    for folder in (run_dir, *(path for path in run_dir.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    code, (line,) = launched(run_dir)
    assert code == 1
    assert line.startswith(f"error: {run_dir}: metrics could not be written (Permission denied). ")
    assert content(run_dir) == before


@pytest.mark.parametrize("victim", ["state/_METADATA", "state", "manifest.json"])
def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_a_damaged_one(run_dir, victim):
    before = content(run_dir)
    path = run_dir / "checkpoints" / "10" / victim
    path.chmod(0)
    code, (line,) = launched(run_dir)
    assert code == 1
    assert line == f"error: {path}: cannot be read (Permission denied); nothing is changed"
    path.chmod(0o755)
    assert content(run_dir) == before


def test_a_config_that_may_not_be_read(run_dir):
    (run_dir / "config.json").chmod(0)
    for arguments in ((), ("--mode=eval",)):
        code, (line,) = launched(run_dir, *arguments)
        assert code in (1, 2)
        assert str(run_dir / "config.json") in line and "Permission denied" in line


@pytest.mark.slow
def test_rights_that_are_lost_under_way(tmp_path):
    run_dir = tmp_path / "run"
    program = f"""
import os, pathlib, sys, time
from collab_jax.runs import loop
from collab_jax.errors import RunError
from collab_jax.training.batches import Feed
from compare_runs import own_lines
from tiny import tiny_config

run, dispatched = Feed.run, []

def counted(self, state, inputs):
    dispatched.append(1)
    if len(dispatched) == 5:
        while not pathlib.Path({str(run_dir / "checkpoints" / "3" / "manifest.json")!r}).exists():
            time.sleep(0.01)
        os.chmod({str(run_dir / "checkpoints")!r}, 0o555)
    return run(self, state, inputs)

Feed.run = counted
try:
    loop.run(tiny_config("baseline", checkpoint__every_steps=3), {str(run_dir)!r})
except RunError as error:
    sys.exit(f"told: {{error}}")
"""
    done = subprocess.run(
        [*WITHOUT_RIGHTS, sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    (run_dir / "checkpoints").chmod(0o755)
    told = [line for line in done.stderr.splitlines() if line.startswith("told: ")]
    assert len(told) == 1, done.stderr
    assert "5: the checkpoint could not be written (" in told[0] and "ermission denied" in told[0]
    assert told[0].endswith("; the last sound checkpoint is step 3")
