"""Checkpoints that are damaged, cut off, or refused by the disk."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax.errors import RunError, UserError
from collab_jax.runs.checkpoint import Checkpointer, complete_steps, read_checkpoint
from collab_jax.runs.manifest import MANIFEST, write_manifest

STATE = {
    "params": {"w": jnp.arange(600.0).reshape(20, 30), "b": jnp.ones(3)},
    "heads": {},
    "flag": jnp.array([True, False]),
}


def scaled(factor):
    return {**STATE, "params": jax.tree.map(lambda leaf: leaf * factor, STATE["params"])}


@pytest.fixture
def run_dir(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    for step in (1, 2, 3):
        checkpointer.save(step, scaled(step), {"best": None, "note": step}, best_step=1)
    checkpointer.close()
    return tmp_path


def test_the_two_latest_and_the_best_are_kept(run_dir):
    checkpointer = Checkpointer(run_dir)
    for step, best in ((4, 1), (5, 5), (6, 5), (7, 5), (8, 5)):
        checkpointer.save(step, scaled(step), {}, best_step=best)
    checkpointer.wait()
    assert complete_steps(checkpointer.directory) == [5, 7, 8]
    checkpointer.close()


def test_restored_as_saved(run_dir):
    checkpointer = Checkpointer(run_dir)
    step, state, record = checkpointer.restore(STATE)
    checkpointer.close()
    assert (step, record["note"]) == (3, 3)
    jax.tree.map(np.testing.assert_array_equal, state, scaled(3))
    part, _ = read_checkpoint(
        run_dir / "checkpoints", 2, lambda record: {"params": {"b": STATE["params"]["b"]}}
    )
    np.testing.assert_array_equal(part["params"]["b"], 2 * np.ones(3))
    assert set(part["params"]) == {"b"}


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_byte_or_truncation_falls_back_to_the_one_before(run_dir, seed):
    rng = random.Random(seed)
    folder = run_dir / "checkpoints" / "3"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    victim = rng.choice(files)
    content = bytearray(victim.read_bytes())
    place = rng.randrange(len(content))
    if seed % 3 == 0:
        content = content[:place]
    else:
        content[place] ^= 1 << rng.randrange(8)
    victim.write_bytes(content)
    with pytest.raises(RunError, match="3: damaged, it differs from its manifest.json"):
        read_checkpoint(run_dir / "checkpoints", 3, lambda record: {})
    checkpointer = Checkpointer(run_dir)
    with pytest.warns(UserWarning, match="checkpoints/3: damaged.* going on from .*/2"):
        step, state, _ = checkpointer.restore(STATE)
    assert step == 2
    np.testing.assert_array_equal(state["params"]["w"], scaled(2)["params"]["w"])
    checkpointer.save(3, scaled(3), {}, best_step=1)  # written anew where the damaged one was
    checkpointer.close()
    assert complete_steps(run_dir / "checkpoints") == [1, 2, 3]


def test_none_sound_is_an_error_and_not_a_start_from_zero(run_dir):
    for step in (1, 2, 3):
        path = run_dir / "checkpoints" / str(step) / "state" / "manifest.ocdbt"
        path.write_bytes(path.read_bytes()[:-1])
    checkpointer = Checkpointer(run_dir)
    with pytest.raises(RunError, match=r"every checkpoint is damaged \(step 1, 2, 3\)"):
        checkpointer.restore(STATE)
    checkpointer.close()


def test_one_that_was_cut_off_before_its_manifest_is_removed(run_dir):
    (run_dir / "checkpoints" / "3" / MANIFEST).unlink()
    checkpointer = Checkpointer(run_dir)
    checkpointer.remove_incomplete()
    assert complete_steps(checkpointer.directory) == [1, 2]
    assert checkpointer.restore(STATE)[0] == 2
    checkpointer.save(3, scaled(3), {}, best_step=1)
    checkpointer.close()
    assert complete_steps(checkpointer.directory) == [1, 2, 3]


def test_a_manifest_lists_every_file(run_dir):
    folder = run_dir / "checkpoints" / "3"
    listed = json.loads((folder / MANIFEST).read_text())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == set(listed) | {MANIFEST}
    (folder / "added").write_text("")
    with pytest.raises(RunError, match="damaged"):
        read_checkpoint(run_dir / "checkpoints", 3, lambda record: {})


def test_a_folder_that_vanishes_is_told_with_what_is_kept(run_dir):
    checkpointer = Checkpointer(run_dir)
    shutil.rmtree(run_dir)
    (run_dir).write_text("no longer a folder")
    with pytest.raises(RunError, match=r"4: the checkpoint could not be written .*none yet"):
        checkpointer.save(4, STATE, {}, best_step=None)
        checkpointer.wait()
    (run_dir).unlink()


def test_an_unknown_step(run_dir):
    with pytest.raises(UserError, match="no step 9 in .*; expected one of 1, 2, 3"):
        read_checkpoint(run_dir / "checkpoints", 9, lambda record: {})


@pytest.mark.parametrize(
    "text", ["[]", "5", "null", '"files"', '{"record/metadata": 5}', "[" * 100_000]
)
def test_a_manifest_of_another_form_is_a_damaged_one(text, run_dir):
    (run_dir / "checkpoints" / "3" / MANIFEST).write_text(text)
    checkpointer = Checkpointer(run_dir)
    with pytest.warns(UserWarning, match="checkpoints/3: damaged"):
        assert checkpointer.restore(STATE)[0] == 2
    checkpointer.close()


def test_a_manifest_that_names_files_elsewhere_is_a_damaged_one(run_dir):
    outside = run_dir / "outside"
    outside.write_text("kept")
    path = run_dir / "checkpoints" / "3" / MANIFEST
    listed = json.loads(path.read_text())
    path.write_text(json.dumps({**listed, "../../outside": listed["record/metadata"]}))
    checkpointer = Checkpointer(run_dir)
    with pytest.warns(UserWarning, match="checkpoints/3: damaged"):
        assert checkpointer.restore(STATE)[0] == 2
    checkpointer.close()
    assert outside.read_text() == "kept"


def restore_from_other_bytes(run_dir):
    """Damages files under a manifest that fits, as an untrusted checkpoint's does."""
    folder = run_dir / "checkpoints" / "3"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    files = [path for path in files if path.name != MANIFEST]
    rng = random.Random(5)
    told = 0
    for trial in range(60):
        path = rng.choice(files)
        sound = path.read_bytes()
        content = bytearray(sound)
        place = rng.randrange(len(content))
        content[place] ^= rng.randrange(1, 256)
        path.write_bytes(content if trial % 3 else content[:place])
        write_manifest(folder)
        before = sorted(run_dir.rglob("*"))
        checkpointer = Checkpointer(run_dir)
        try:
            checkpointer.restore(STATE)
        except RunError as error:
            assert str(error).startswith(f"{folder}: as it was written, but not what this version")
            assert "\n" not in str(error)
            told += 1
        checkpointer.close()
        with contextlib.suppress(RunError):
            read_checkpoint(run_dir / "checkpoints", 3, lambda _: {"params": STATE["params"]})
        assert sorted(run_dir.rglob("*")) == before
        path.write_bytes(sound)
    print(told)


def test_a_checkpoint_made_of_other_bytes_is_told_in_one_line_or_restored(run_dir):
    # In a process of its own: Orbax leaves coroutines behind whose ends pytest takes for errors.
    program = (
        "import pathlib, sys, test_checkpoint\n"
        "test_checkpoint.restore_from_other_bytes(pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run_dir)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
