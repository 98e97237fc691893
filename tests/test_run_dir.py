"""Who holds a run directory, and what is left of it after a mistake or a removal."""

import os
import shutil

import pytest
from runs import tiny_config

from collab_jax import train
from collab_jax.errors import RunError, UserError
from collab_jax.run_dir import hold


def test_a_removed_or_replaced_directory_is_noticed(tmp_path):
    run_dir = tmp_path / "run"
    with hold(run_dir) as check:
        check()
        shutil.rmtree(run_dir)
        with pytest.raises(RunError, match=f"^{run_dir}: the run directory was removed"):
            check()
        run_dir.mkdir()
        (run_dir / ".lock").write_text("another run's")
        with pytest.raises(RunError, match="removed or replaced"):
            check()


def test_a_mistake_leaves_no_new_directory_and_keeps_an_old_one(tmp_path):
    for name, made_before in (("new", False), ("old", True)):
        run_dir = tmp_path / name
        if made_before:
            run_dir.mkdir()
        with pytest.raises(UserError, match="init_from nowhere: not found"):
            train.run(tiny_config("baseline", init_from="nowhere"), run_dir)
        assert run_dir.exists() == made_before


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / f".result.json.{os.getpid()}").write_text("{")
    with hold(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir .*/file/run: Not a directory; exp"):
        with hold(tmp_path / "file" / "run"):
            pass
