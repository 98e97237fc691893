"""Who holds a run directory, and what is left of it after a mistake or a removal."""

import errno
import json
import random
import resource
import shutil
import signal

import pytest
from tiny import tiny_config

from collab_jax.errors import RunError, UserError
from collab_jax.runs import loop
from collab_jax.runs.directory import hold, open_config, read_config, written_or_told


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
            loop.run(tiny_config("baseline", init_from="nowhere"), run_dir)
        assert run_dir.exists() == made_before


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".result.json.new-0123456789ab").write_text("{")
    with hold(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir .*/file/run: Not a directory; exp"):
        with hold(tmp_path / "file" / "run"):
            pass


@pytest.mark.parametrize("name, limit", [(".lock", 0), ("config.json", 100)])
def test_a_full_disk_at_the_start_is_told_with_the_file(tmp_path, name, limit):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        with pytest.raises(RunError, match=rf"^{tmp_path}/{name}: could not be written \(File too"):
            with hold(tmp_path):
                open_config(tmp_path, tiny_config(), resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    with hold(tmp_path):  # with more room
        open_config(tmp_path, tiny_config(), resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json"]


def test_a_damaged_config_is_told_in_one_line_or_read(tmp_path):
    with hold(tmp_path):
        open_config(tmp_path, tiny_config(), resume=True)
    path = tmp_path / "config.json"
    sound = path.read_bytes()
    rng = random.Random(3)
    told = 0
    for trial in range(150):
        content = bytearray(sound)
        place = rng.randrange(len(content))
        content[place] ^= rng.randrange(1, 256)
        path.write_bytes(content if trial % 3 else content[:place])
        try:
            read_config(tmp_path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            told += 1
    assert told > 100


def test_a_run_of_an_earlier_version_is_read_and_not_gone_on_with(tmp_path):
    with hold(tmp_path):
        open_config(tmp_path, tiny_config(), resume=True)
        path = tmp_path / "config.json"
        tree = json.loads(path.read_text())
        tree["version"], tree["pull_push"]["weight"] = "0.1.0", 0.02
        path.write_text(json.dumps(tree))
        assert read_config(tmp_path).pull_push.weight == 1.28
        with pytest.raises(UserError) as caught:
            open_config(tmp_path, tiny_config(), resume=True)
    assert str(caught.value).startswith(
        f"--workdir {tmp_path}: config.version = 0.1.0 of its run; expected 0.2.0 or later"
    )


def test_what_a_read_only_run_does_not_take_is_told_and_not_kept(tmp_path):
    with (
        pytest.warns(UserWarning, match=r"not written \(read-only\); --output DIR writes it"),
        written_or_told(tmp_path, asked_for=False),
    ):
        raise OSError(errno.EROFS, "read-only")
    for code, asked_for in ((errno.EROFS, True), (errno.ENOSPC, False)):
        with pytest.raises(OSError), written_or_told(tmp_path, asked_for=asked_for):
            raise OSError(code, "refused")
