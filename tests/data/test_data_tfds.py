"""TFDS's own builders on small archives, offline, and what is cached of them."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import archives
import numpy as np
import pytest

from collab_jax import data
from collab_jax.errors import UserError

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
# With a version it is TFDS that reads it, not the reader of the published archives.
CIFAR10 = "cifar10:3.0.2"


def by_image(images, labels):
    """Label by image, as TFDS shuffles the examples when it prepares them."""
    pairs = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    assert len(pairs) == len(labels)
    return pairs


def check_contents(dataset, contents):
    assert dataset.train.source.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32
    assert isinstance(dataset.train.source, np.memmap)
    assert dataset.train.image_shape == contents.train_images.shape[1:]
    for split, images, labels in (
        (dataset.train, contents.train_images, contents.train_labels),
        (dataset.test, contents.test_images, contents.test_labels),
    ):
        assert by_image(split.images, split.labels) == by_image(images, labels)
    pixels = contents.train_images.astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 1, 2)), rtol=1e-6)


@pytest.fixture(scope="module")
def cifar10_root(tmp_path_factory):
    """A data folder with a small cifar10, prepared from `downloads/manual`, and its contents."""
    root = tmp_path_factory.mktemp("cifar10")
    manual = root / "downloads" / "manual"
    manual.mkdir(parents=True)
    contents = archives.cifar10(manual)
    data.load(CIFAR10, data_dir=str(root))
    return root, contents


def test_cifar10_from_an_archive_in_the_manual_folder(cifar10_root, caplog):
    root, contents = cifar10_root
    with caplog.at_level(logging.WARNING):
        dataset = data.load(CIFAR10, data_dir=str(root))
    check_contents(dataset, contents)
    assert dataset.class_names == archives.CIFAR10_NAMES
    assert (dataset.num_classes, dataset.validation) == (10, None)
    # A file that is not the published one is used, and told each time.
    (record,) = [record for record in caplog.records if "SHA-256" in record.message]
    assert str(root / "downloads/manual/cifar-10-binary.tar.gz") in record.message


def test_cached_arrays_need_neither_archive_nor_prepared_data(cifar10_root, tmp_path, caplog):
    root, contents = cifar10_root
    shutil.copytree(root / "arrays", tmp_path / "arrays")
    check_contents(data.load(CIFAR10, data_dir=str(tmp_path)), contents)
    # The warning stays with the arrays.
    assert "SHA-256" in caplog.text


def test_reduced_images_are_cached_apart_and_prepared_data_used_again(cifar10_root):
    root, contents = cifar10_root
    before = {path: path.stat().st_mtime_ns for path in (root / "cifar10").rglob("*")}
    dataset = data.load(CIFAR10, data_dir=str(root), image_size=8)
    assert {path: path.stat().st_mtime_ns for path in (root / "cifar10").rglob("*")} == before
    blocks = contents.train_images.reshape(-1, 8, 4, 8, 4, 3).astype(np.int64)
    expected = (blocks.sum((2, 4)) + 8) // 16  # The mean of 16 pixels, rounded half up.
    pairs = by_image(dataset.train.images, dataset.train.labels)
    assert pairs == by_image(expected.astype(np.uint8), contents.train_labels)
    full = data.load(CIFAR10, data_dir=str(root))
    assert full.train.image_shape == (32, 32, 3)


def test_statistics_are_of_the_training_split_as_used_and_cached(cifar10_root):
    root, _ = cifar10_root
    arguments = dict(data_dir=str(root), validation=0.2, train_examples=40, seed=3)
    first = data.load(CIFAR10, **arguments)
    pixels = first.train.images.astype(np.float64) / 255
    assert pixels.shape == (40, 32, 32, 3)
    np.testing.assert_allclose(first.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(first.std, pixels.std((0, 1, 2)), rtol=1e-6)
    whole = data.load(CIFAR10, data_dir=str(root))
    assert not np.array_equal(whole.mean, first.mean)
    # The file is read: what stands in it is what comes back.
    (folder,) = (root / "arrays" / "cifar10").glob("*[0-9]/")
    known = set(folder.glob("statistics-*.json"))
    data.load(CIFAR10, **{**arguments, "seed": 4})
    (added,) = set(folder.glob("statistics-*.json")) - known
    added.write_text(json.dumps({"mean": [0.25, 0.5, 0.75], "std": [0.5, 0.25, 0.125]}))
    again = data.load(CIFAR10, **{**arguments, "seed": 4})
    assert again.mean.tolist() == [0.25, 0.5, 0.75]
    # Nonsense in it is not.
    added.write_text(json.dumps({"mean": [0.25, 0.5, -0.75], "std": [0.5, 0.25, 0.125]}))
    assert data.load(CIFAR10, **{**arguments, "seed": 4}).mean.min() > 0


def test_cifar100_from_a_download_cached_by_name(tmp_path):
    from tensorflow_datasets import builder_cls
    from tensorflow_datasets.core.download.resource import get_dl_fname

    ((url, info),) = builder_cls("cifar100").url_infos.items()
    downloads = tmp_path / "downloads" / "cifar100"
    downloads.mkdir(parents=True)
    path = downloads / get_dl_fname(url, info.checksum)
    contents = archives.cifar100(path)
    Path(f"{path}.INFO").write_text(json.dumps({"original_fname": "cifar-100-binary.tar.gz"}))
    dataset = data.load("cifar100:3.0.2", data_dir=str(tmp_path))
    check_contents(dataset, contents)
    assert dataset.class_names == tuple(f"fine{i}" for i in range(100))


def test_stl10_pixels_stand_upright_and_unlabelled_images_stay_out(tmp_path):
    manual = tmp_path / "archives"
    manual.mkdir()
    contents = archives.stl10(manual)
    dataset = data.load("stl10:1.0.0", data_dir=str(tmp_path / "data"), manual_dir=str(manual))
    check_contents(dataset, contents)
    assert dataset.class_names == archives.STL10_NAMES


def test_imagenet32_takes_the_validation_split_for_testing(tmp_path):
    manual = tmp_path / "archives"
    manual.mkdir()
    contents = archives.imagenet32(manual)
    dataset = data.load(
        "imagenet_resized/32x32", data_dir=str(tmp_path / "data"), manual_dir=str(manual)
    )
    check_contents(dataset, contents)
    assert dataset.num_classes == len(dataset.class_names) == 1000


LOAD = """
import sys
from collab_jax import data
dataset = data.load("cifar10:3.0.2", data_dir=sys.argv[1])
assert len(dataset.train) == 100, len(dataset.train)
loaded = [name for name in ("tensorflow", "torch") if name in sys.modules]
assert not loaded, loaded
print(int(dataset.train.images.sum(dtype="int64")))
"""


def start(root):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", LOAD, str(root)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_prepare_at_once_without_importing_tensorflow(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    contents = archives.cifar10(manual)
    processes = [start(tmp_path), start(tmp_path)]
    answers = [process.communicate(timeout=240) for process in processes]
    for process, (output, errors) in zip(processes, answers, strict=True):
        assert process.returncode == 0, errors
        assert int(output) == contents.train_images.sum(dtype=np.int64)
    leftover = [path.name for path in (tmp_path / "arrays").rglob("*") if ".new-" in path.name]
    assert not leftover
    assert not list(tmp_path.rglob("*incomplete*"))


def test_archive_members_cannot_leave_their_folder(tmp_path):
    manual = tmp_path / "data" / "downloads" / "manual"
    manual.mkdir(parents=True)
    outside = tmp_path / "outside"
    archives.write_tar(
        manual / "cifar-10-binary.tar.gz",
        {"../../../../outside": b"x", str(outside): b"x", "a/../../../outside": b"x"},
    )
    with pytest.raises(UserError, match="cifar-10-binary.tar.gz") as caught:
        data.load(CIFAR10, data_dir=str(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("outside"))
    assert not list((tmp_path / "data").rglob("*.new-*"))


def test_truncated_archive_is_told_in_one_line(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    archives.cifar10(manual)
    path = manual / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(
        UserError, match=r"cifar10:3.0.2 cannot be prepared from .*tar\.gz: "
    ) as caught:
        data.load(CIFAR10, data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)
    # The sound archive then works.
    contents = archives.cifar10(manual)
    check_contents(data.load(CIFAR10, data_dir=str(tmp_path)), contents)
