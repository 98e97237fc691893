"""Other people's files: a run deletes what it wrote, and refuses to start over anything else."""

import shutil

import jax.numpy as jnp
import pytest
from tiny import tiny_config

from collab_jax.errors import UserError
from collab_jax.runs import loop
from collab_jax.runs.checkpoint import Checkpointer, complete_steps
from collab_jax.runs.directory import hold, open_config
from collab_jax.runs.manifest import MANIFEST

STATE = {"w": jnp.arange(6.0)}


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", ["checkpoints/1000/weights", "tensorboard/notes.txt", "metrics.jsonl", "result.json"]
)
def test_a_folder_that_is_no_runs_is_refused_and_left_as_it_is(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("theirs")
    before = content(tmp_path)
    told = rf"^--workdir {tmp_path}: holds {name.split('/')[0]} and no config\.json"
    with pytest.raises(UserError, match=told):
        loop.run(tiny_config("baseline"), tmp_path)
    assert content(tmp_path) == before


def test_other_files_are_no_hindrance(tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "checkpoints").mkdir()
    with hold(tmp_path):
        open_config(tmp_path, tiny_config(), resume=True)
    assert (tmp_path / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("is_run", [False, True])
@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "metrics.jsonl", ".lock"])
def test_what_leads_elsewhere_is_refused(tmp_path, name, is_run):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("theirs")
    run_dir = tmp_path / "run"
    if is_run:
        with hold(run_dir):
            open_config(run_dir, tiny_config(), resume=True)
    run_dir.mkdir(exist_ok=True)
    (run_dir / name).unlink(missing_ok=True)
    (run_dir / name).symlink_to(elsewhere if "." not in name else elsewhere / "file")
    with pytest.raises(UserError, match=rf"--workdir {run_dir}: {name} is a symbolic link"):
        loop.run(tiny_config(), run_dir)
    assert content(elsewhere) == {elsewhere / "file": b"theirs"}


def test_a_mistake_removes_a_new_directory_only_if_nothing_else_is_in_it(tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(UserError, match="a mistake"):
        with hold(run_dir):
            (run_dir / "notes.md").write_text("mine")
            raise UserError("a mistake")
    assert [path.name for path in run_dir.iterdir()] == ["notes.md"]


@pytest.fixture
def run_dir(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    for step in (1, 2, 3):
        checkpointer.save(step, STATE, {"step": step}, best_step=1)
    checkpointer.close()
    return tmp_path


def unlisted(directory):
    """As another program's, with files under the name of a step."""
    (directory / "1000" / "state").mkdir(parents=True)
    (directory / "1000" / "state" / "weights").write_text("theirs")
    return directory / "1000"


def with_a_manifest_that_does_not_fit(directory):
    path = unlisted(directory)
    (path / MANIFEST).write_text('{"state/weights": "0"}')
    return path


def unfinished(directory):
    path = directory / "1000.orbax-checkpoint-tmp"
    unlisted(directory).rename(path)
    return path


def of_another_name(directory):
    path = directory / "0002"
    unlisted(directory).rename(path)
    return path


def linked(directory):
    path = directory / "2"
    elsewhere = directory.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    return path


@pytest.mark.parametrize(
    "make", [unlisted, with_a_manifest_that_does_not_fit, unfinished, of_another_name, linked]
)
def test_a_checkpoint_that_the_run_did_not_write_is_refused(run_dir, make):
    path = make(run_dir / "checkpoints")
    before = content(run_dir)
    with pytest.raises(UserError, match=f"^{path}: not written by this run"):
        Checkpointer(run_dir)
    assert content(run_dir) == before


def test_what_this_run_wrote_is_its_own_finished_or_not(run_dir):
    directory = run_dir / "checkpoints"
    (directory / "3" / MANIFEST).unlink()  # a kill before the manifest
    shutil.rmtree(directory / "2" / "record")  # a kill while it was deleted
    with (directory / ".written").open("ab") as file:
        file.write(b"100")  # a kill within the line
    checkpointer = Checkpointer(run_dir)
    with pytest.warns(UserWarning, match="checkpoints/2: damaged"):
        state, record = checkpointer.resume(STATE) or (None, None)
    checkpointer.close()
    assert record == {"step": 1} and state is not None
    assert complete_steps(directory) == [1]


def test_a_copied_checkpoint_is_known_by_its_manifest(run_dir):
    (run_dir / "checkpoints" / ".written").unlink()
    checkpointer = Checkpointer(run_dir)
    assert checkpointer.restore(STATE)[0] == 3
    checkpointer.close()


def test_a_run_takes_no_file_of_other_people(tmp_path):
    run_dir, lock = tmp_path / "run", tmp_path / "run" / ".lock"
    config = tiny_config("baseline", steps=2, checkpoint__every_steps=1, log__tensorboard=True)
    (run_dir / "tensorboard").mkdir(parents=True)
    loop.run(config, run_dir)
    (run_dir / "tensorboard" / "notes.txt").write_text("mine")
    (run_dir / "tensorboard" / "events.out.tfevents.1.elsewhere").write_text("theirs")
    (run_dir / "checkpoints" / "notes").mkdir()
    finished = content(run_dir) | {lock: b""}
    loop.run(config, run_dir)
    assert content(run_dir) | {lock: b""} == finished
    shutil.rmtree(run_dir / "checkpoints" / "2")
    loop.run(config, run_dir)
    assert (run_dir / "tensorboard" / "notes.txt").read_text() == "mine"
    assert (run_dir / "tensorboard" / "events.out.tfevents.1.elsewhere").read_text() == "theirs"
    assert len(list((run_dir / "tensorboard").iterdir())) == 3
    assert (run_dir / "checkpoints" / "notes").is_dir()
