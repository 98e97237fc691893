"""Folders of images: their splits and classes, links, what cannot be read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_folders import CLASSES, check, folders, load, pixels, save

from collab_jax import data
from collab_jax.errors import UserError

pytestmark = pytest.mark.smoke

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_a_folder_of_splits_and_classes(test, tmp_path):
    found = folders(tmp_path / "own", (("train", 4), (test, 2)))
    for _ in range(2):
        dataset = load(tmp_path / "own", tmp_path)
        check(dataset, found, test)
        assert dataset.class_names == CLASSES
        assert isinstance(dataset.train.source, np.memmap)


def test_a_folder_is_decoded_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    found = folders(tmp_path / "own")
    load(tmp_path / "own", tmp_path)
    monkeypatch.setattr("collab_jax.data.image_files.decode", None)
    check(load(tmp_path / "own", tmp_path), found)
    monkeypatch.undo()
    other = pixels(1000)
    save(tmp_path / "own/train/ant/0.png", other)
    os.utime(tmp_path / "own/train/ant/0.png", (1, 1))
    changed = load(tmp_path / "own", tmp_path)
    assert np.array_equal(changed.train.images[0], other)


def test_one_level_is_split_by_a_fraction_the_same_for_every_seed(tmp_path):
    found = folders(tmp_path, (("own", 10),))
    with pytest.raises(UserError, match="no test split, expected one, or data.test=0.2"):
        load(tmp_path / "own", tmp_path)
    first = load(tmp_path / "own", tmp_path, test=0.2)
    assert np.bincount(first.test.labels).tolist() == [2, 2, 2]
    assert np.bincount(first.train.labels).tolist() == [8, 8, 8]
    every = np.concatenate([first.train.images, first.test.images])
    assert {image.tobytes() for image in every} == {image.tobytes() for image in found["own"][0]}
    for seed in (1, 2):
        again = load(tmp_path / "own", tmp_path, test=0.2, validation=0.25, seed=seed)
        assert np.array_equal(again.test.images, first.test.images)
        assert again.fingerprint == first.fingerprint
        assert len(again.validation) == 6
    assert len(load(tmp_path / "own", tmp_path, test=0.5).test) == 15


def test_a_training_folder_alone_is_split_as_well(tmp_path):
    folders(tmp_path / "own", (("train", 5),))
    assert len(load(tmp_path / "own", tmp_path, test=0.2).test) == 3


def test_folders_that_do_not_do(tmp_path):
    def message(**arguments):
        with pytest.raises(UserError) as caught:
            load(tmp_path / "own", tmp_path, **arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert message().startswith(f"data.name = folder:{tmp_path}/own: no such folder, expected")
    (tmp_path / "own").mkdir()
    assert message() == f"{tmp_path}/own: no folders, expected one for each class"
    folders(tmp_path / "own")
    assert "data.test = 0.2: expected 0 for folder:" in message(test=0.2)
    (tmp_path / "own/test/dog").mkdir()
    assert message() == f"{tmp_path}/own/test/dog: no such class in {tmp_path}/own/train"
    (tmp_path / "own/train/dog").mkdir()
    assert message().startswith(f"{tmp_path}/own/train/dog: no images, expected files that end in")
    shutil.rmtree(tmp_path / "own/train")
    assert message() == f"{tmp_path}/own: no folder train beside {tmp_path}/own/test"
    with pytest.raises(UserError, match="data.name = 'folder:': expected folder: and then where"):
        data.load("folder:")
    folders(tmp_path / "one", (("all", 3),))
    with pytest.raises(UserError, match="has the class 'all' alone"):
        load(tmp_path / "one", tmp_path, test=0.2)


@pytest.mark.parametrize("leads_to", ["own/train/bee", "own/train", "own", ".", "own/train/bee/x"])
def test_a_link_to_a_folder_that_it_lies_in_is_told(leads_to, tmp_path):
    folders(tmp_path / "own")
    (tmp_path / "own/train/bee/x").mkdir()
    link = tmp_path / "own/train/bee/x/again"
    link.symlink_to(tmp_path / leads_to)
    with pytest.raises(UserError, match=f"^{link}: leads back to a folder that it lies in"):
        load(tmp_path / "own", tmp_path)


def test_two_links_that_lead_to_each_other_are_told(tmp_path):
    folders(tmp_path / "own")
    for name, other in (("ant", "bee"), ("bee", "ant")):
        (tmp_path / "own/train" / name / "more").symlink_to(tmp_path / "own/train" / other)
    with pytest.raises(UserError, match="ant/more/more: leads back"):
        load(tmp_path / "own", tmp_path)


def test_links_to_folders_elsewhere_are_followed(tmp_path):
    found = folders(tmp_path / "own")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own/train/ant").rename(tmp_path / "elsewhere/ant")
    (tmp_path / "own/train/ant").symlink_to(tmp_path / "elsewhere/ant")
    (tmp_path / "elsewhere/bee").mkdir()
    for path in (tmp_path / "own/train/bee").iterdir():
        path.rename(tmp_path / "elsewhere/bee" / path.name)
    (tmp_path / "own/train/bee/more").symlink_to("../../../elsewhere/bee")
    check(load(tmp_path / "own", tmp_path), found)


def test_a_pipe_among_the_images_is_told_and_not_waited_for(tmp_path):
    folders(tmp_path / "own")
    os.mkfifo(tmp_path / "own/train/bee/pipe.png")
    with pytest.raises(UserError, match="bee/pipe.png: is no regular file, expected an image"):
        load(tmp_path / "own", tmp_path)


@pytest.mark.parametrize("inner", ["own", "own/train", "own/train/bee", "own/train/bee/more"])
def test_a_folder_that_may_not_be_read_is_told(inner, tmp_path, monkeypatch):
    folders(tmp_path / "own")
    (tmp_path / "own/train/bee/more").mkdir()
    scandir = os.scandir

    def refused(path):
        if Path(path) == tmp_path / inner:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UserError, match=rf"^{tmp_path / inner}: cannot be read \(Permission de"):
        load(tmp_path / "own", tmp_path)


def test_what_is_left_out_is_told(tmp_path, caplog):
    found = folders(tmp_path / "own", (("train", 2), ("test", 2), ("val", 1)))
    (tmp_path / "own/train/ant/notes.txt").write_text("x")
    (tmp_path / "own/train/ant/.hidden.png").write_text("x")
    save(tmp_path / "own/train/stray.png", pixels(0))
    (tmp_path / "own/extra").mkdir()
    check(load(tmp_path / "own", tmp_path), found)
    told = caplog.text
    assert "own/train/stray.png and 1 more" in told and ".hidden" not in told
    assert "left out, neither train, test nor val: extra" in told
    assert "its validation split is left out" in told


FULL_DISK = """
import resource, sys
from collab_jax import data
from collab_jax.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
try:
    data.load(f"folder:{sys.argv[1]}", data_dir=sys.argv[2])
except RunError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    folders(tmp_path / "own")
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "own"), str(tmp_path / "data")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "own-" in result.stdout and "cannot be written (File too large)" in result.stdout
    assert [found.suffix for found in (tmp_path / "data/arrays/images").iterdir()] == [".lock"]
