"""CIFAR and STL-10 from small archives in the layouts in which they are published."""

import http.server
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import archives
import numpy as np
import pytest

from collab_jax import data
from collab_jax.data import archive_formats, cache, download
from collab_jax.data.cifar_pickle import read_pickle
from collab_jax.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
NO_NETWORK = "http://127.0.0.1:9"  # A proxy that refuses every connection.

MADE = {
    "cifar10": (archives.cifar10, archives.cifar10_python),
    "cifar100": (
        lambda folder: archives.cifar100(folder / "cifar-100-binary.tar.gz"),
        archives.cifar100_python,
    ),
    "stl10": (archives.stl10,),
}
CASES = [(name, make) for name, makers in MADE.items() for make in makers]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NO_NETWORK)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def check(dataset, contents):
    for split, images, labels in (
        (dataset.train, contents.train_images, contents.train_labels),
        (dataset.test, contents.test_images, contents.test_labels),
    ):
        assert isinstance(split.source, np.memmap)
        assert np.array_equal(split.images, images) and split.images.dtype == np.uint8
        assert np.array_equal(split.labels, labels) and split.labels.dtype == np.int32


@pytest.mark.parametrize(("name", "make"), CASES)
def test_an_archive_in_the_manual_folder_gives_its_images_in_its_order(
    name, make, tmp_path, caplog
):
    contents = make(tmp_path)
    dataset = data.load(name, data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path))
    check(dataset, contents)
    names = {"cifar10": archives.CIFAR10_NAMES, "stl10": archives.STL10_NAMES}
    assert dataset.class_names == names.get(name, tuple(f"fine{i}" for i in range(100)))
    assert "not the published file by its checksum" in caplog.text
    # The arrays need no archive, and keep the warning.
    caplog.clear()
    for path in tmp_path.glob("*.tar.gz"):
        path.unlink()
    check(data.load(name, data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path)), contents)
    assert "not the published file by its checksum" in caplog.text


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_both_archives_of_cifar_are_one_data_set(name, tmp_path):
    fingerprints = set()
    for place, make in enumerate(MADE[name]):
        folder = tmp_path / str(place)
        folder.mkdir()
        make(folder)
        dataset = data.load(name, data_dir=str(folder / "data"), manual_dir=str(folder))
        fingerprints.add(dataset.fingerprint)
    assert len(fingerprints) == 1


def test_reduced_images_are_cached_apart(tmp_path):
    contents = archives.cifar10_python(tmp_path)
    places = dict(data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path))
    small = data.load("cifar10", image_size=8, **places)
    blocks = contents.train_images.reshape(-1, 8, 4, 8, 4, 3).astype(np.int64)
    assert np.array_equal(small.train.images, (blocks.sum((2, 4)) + 8) // 16)
    check(data.load("cifar10", **places), contents)


def test_a_download_of_tfds_is_found(tmp_path):
    downloads = tmp_path / "downloads" / "cifar100"
    downloads.mkdir(parents=True)
    contents = archives.cifar100(downloads / "cs.toronto.edu_kriz_cifar-100-binaryAbC-d.tar.gz")
    check(data.load("cifar100", data_dir=str(tmp_path)), contents)


PROGRAM = """
import sys
from collab_jax import data
dataset = data.load(sys.argv[1], data_dir=sys.argv[2], manual_dir=sys.argv[2])
loaded = [name for name in sys.modules if name.startswith(("tensorflow", "torch", "array_record"))]
assert not loaded, loaded
print(len(dataset.train))
"""


def test_no_tensorflow_and_no_tfds_are_loaded(tmp_path):
    archives.stl10(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, "stl10", str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "30\n"), done.stderr


def test_the_message_names_both_archives(tmp_path):
    with pytest.raises(UserError) as caught:
        data.load("cifar10", data_dir=str(tmp_path), manual_dir=str(tmp_path / "manual"))
    assert str(caught.value) == (
        f"data set cifar10 is not in {tmp_path} and cannot be downloaded (www.cs.toronto.edu: no "
        f"connection): looked in {tmp_path}/manual for cifar-10-python.tar.gz or "
        "cifar-10-binary.tar.gz; put what https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz "
        "or https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz gives there, under that name"
    )


def test_checksums_are_those_that_tfds_has_registered():
    tfds = pytest.importorskip("tensorflow_datasets")
    for name, published in archive_formats.ARCHIVES.items():
        ((url, info),) = tfds.builder_cls(name).url_infos.items()
        known = {archive.url: archive for archive in published}
        assert url in known
        if known[url].checksum.startswith("sha256:"):
            assert known[url].checksum == f"sha256:{info.checksum}"


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in an archive was run')",))


TRAPS = {
    "exec": {b"labels": [0], b"data": Trap()},
    "an object": {b"labels": [0], b"data": Path("x")},
    "array of objects": {b"labels": [0], b"data": np.array([None], object)},
    "array of text": {b"labels": [0], b"data": np.array(["a"])},
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", TRAPS)
def test_a_pickle_runs_no_code(name, protocol, tmp_path):
    with pytest.raises(ValueError, match="asks for|other than bytes"):
        read_pickle(pickle.dumps(TRAPS[name], protocol=protocol))
    folder = "cifar-10-batches-py"
    batch = archives.python2_pickle({b"labels": [0], b"data": np.zeros((1, 3072), np.uint8)})
    files = {f"{folder}/data_batch_{i}": batch for i in range(1, 6)}
    files[f"{folder}/test_batch"] = pickle.dumps(TRAPS[name], protocol=protocol)
    files[f"{folder}/batches.meta"] = archives.python2_pickle({b"label_names": [b"a", b"b"]})
    archives.write_tar(tmp_path / "cifar-10-python.tar.gz", files)
    with pytest.raises(UserError, match="cifar-10-python.tar.gz: the archive is damaged") as caught:
        data.load("cifar10", data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").rglob("*.npy"))


def test_arrays_of_todays_numpy_are_read_as_well():
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for array in (pixels, np.asfortranarray(pixels)):
        found = read_pickle(pickle.dumps({"data": array, "labels": [1, 2]}, protocol=2 + 1))
        assert np.array_equal(found["data"], pixels) and found["labels"] == [1, 2]


@pytest.mark.parametrize(("name", "make"), CASES)
def test_damaged_archives_are_told_in_one_line_or_harmless(name, make, tmp_path):
    contents = make(tmp_path)
    (path,) = tmp_path.glob("*.tar.gz")
    sound = path.read_bytes()
    random = np.random.default_rng(3)
    told = 0
    for trial in range(12):
        damaged = bytearray(sound)
        place = int(random.integers(len(sound)))
        if trial % 3 == 0:
            del damaged[place:]
        else:
            damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        root = tmp_path / f"data{trial}"
        try:
            dataset = data.load(name, data_dir=str(root), manual_dir=str(tmp_path))
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            assert not list(root.rglob("*.npy"))
            told += 1
        else:
            assert len(dataset.train) == len(contents.train_images)
    assert told >= 4  # Those that were cut.


def test_members_cannot_leave_the_archive(tmp_path):
    outside = tmp_path / "outside"
    archives.write_tar(
        tmp_path / "cifar-10-python.tar.gz",
        {"../outside": b"x", str(outside): b"x", "a/../../outside": b"x"},
    )
    with pytest.raises(UserError, match="no file cifar-10-batches-py/.* in it"):
        data.load("cifar10", data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path))
    assert not list(tmp_path.rglob("outside"))


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """What lies in the folder `served`, by HTTP."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    def handler(*arguments):
        return Handler(*arguments, directory=str(folder))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_has_the_known_checksum_or_is_refused(server, tmp_path):
    import hashlib

    folder, url = server
    (folder / "x.tar.gz").write_bytes(bytes(range(256)) * 5000)
    known = hashlib.md5((folder / "x.tar.gz").read_bytes()).hexdigest()
    target = tmp_path / "down" / "x.tar.gz"
    download.fetch(f"{url}/x.tar.gz", f"md5:{known}", 1_280_000, target)
    assert target.read_bytes() == (folder / "x.tar.gz").read_bytes()
    other = tmp_path / "other" / "x.tar.gz"
    with pytest.raises(UserError, match="x.tar.gz: the download failed .*hash") as caught:
        download.fetch(f"{url}/x.tar.gz", "md5:" + "0" * 32, 1, other)
    assert "\n" not in str(caught.value) and not other.exists()
    with pytest.raises(UserError, match="the download failed .*404"):
        download.fetch(f"{url}/none.tar.gz", f"md5:{known}", 1, other)


def test_what_is_missing_is_downloaded_and_read(server, tmp_path, monkeypatch):
    import dataclasses
    import hashlib

    folder, url = server
    contents = archives.cifar10_python(folder)
    digest = hashlib.md5((folder / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
    first, second = archive_formats.ARCHIVES["cifar10"]
    ours = dataclasses.replace(first, url=f"{url}/cifar-10-python.tar.gz", checksum=f"md5:{digest}")
    monkeypatch.setitem(archive_formats.ARCHIVES, "cifar10", (ours, second))
    dataset = data.load("cifar10", data_dir=str(tmp_path / "data"))
    check(dataset, contents)
    (directory,) = (tmp_path / "data" / "arrays" / "archives").glob("cifar10")
    assert cache.description(directory)["published"] is True
