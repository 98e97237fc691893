"""What is said, and how soon, where a data set is neither there nor to be had."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from compare_runs import own_lines

from collab_jax import data
from collab_jax.data import download
from collab_jax.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
NO_NETWORK = "http://127.0.0.1:9"  # A proxy that refuses every connection.

LOAD = """
import sys, time
from collab_jax import data
from collab_jax.errors import UserError
began = time.monotonic()
try:
    data.load(sys.argv[1], data_dir=sys.argv[2])
except UserError as error:
    print(error)
assert "tensorflow" not in sys.modules
print(time.monotonic() - began)
"""


@pytest.fixture
def no_network(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NO_NETWORK)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


TORONTO = "https://www.cs.toronto.edu/~kriz"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cifar10", ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")),
        ("cifar10:3.0.2", ("cifar-10-binary.tar.gz",)),
    ],
)
def test_cifar10_without_network_fails_in_time_with_one_line(name, files, tmp_path, no_network):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD, name, str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert own_lines(result.stderr) == ""
    told, took = result.stdout.splitlines(keepends=True)
    assert float(took) < 5
    assert told == (
        f"data set {name} is not in {tmp_path} and cannot be downloaded (www.cs.toronto.edu: no "
        f"connection): looked in {tmp_path}/downloads/manual for {' or '.join(files)}; put what "
        f"{' or '.join(f'{TORONTO}/{file}' for file in files)} gives there, under that name\n"
    )


def test_only_the_missing_file_is_asked_for(tmp_path, no_network):
    (tmp_path / "Imagenet32_val_npz.zip").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        data.load("imagenet_resized/32x32", data_dir=str(tmp_path), manual_dir=str(tmp_path))
    assert "for Imagenet32_train_npz.zip; put what" in str(caught.value)
    assert "data set imagenet_resized/32x32 is not" in str(caught.value)
    assert "val" not in str(caught.value)


def test_another_data_sets_file_is_refused(tmp_path, monkeypatch):
    from tensorflow_datasets import builder_cls

    theirs = next(iter(builder_cls("fashion_mnist").url_infos.items()))
    name = theirs[1].filename
    (tmp_path / name).write_bytes(b"x")
    answer = (int(theirs[1].size), theirs[1].checksum)
    monkeypatch.setattr("collab_jax.data.tfds_files._size_and_checksum", lambda path: answer)
    with pytest.raises(UserError) as caught:
        data.load("mnist", data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / name}: this is the file of {theirs[0]}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar1O", "data.name = 'cifar1O': no such data set, .* did you mean cifar10"),
        ("digit", "did you mean .*digits"),
        ("../cifar10", "no such data set, expected a name of TFDS such as cifar10"),
        ("huggingface:mnist", "no such data set"),
        ("imagenet_resized/31x31", "BuilderConfig 31x31 not found .* 32x32"),
        ("cifar10:9.9.9", "data.name = 'cifar10:9.9.9': .*only: 3.0.2"),
        ("cats_vs_dogs", r"images of shape \(None, None, 3\), which vary in size"),
        ("glue", "has no .image, label. pairs"),
        ("x.npz", "x.npz: no such file, expected an .npz file"),
    ],
)
def test_names_that_are_no_data_set(name, message, tmp_path, no_network):
    with pytest.raises(UserError, match=message) as caught:
        data.load(name, data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made(tmp_path, no_network):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=f"{tmp_path}/file/.*cannot be written .*data.dir"):
        data.load("cifar10", data_dir=str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        ("tensorflow_datasets", "mnist", "tfds"),
        ("array_record", "mnist", "tfds"),
        ("datasets", "hf:owner/set", "hf"),
        ("sklearn.datasets", "digits", "train"),
        ("PIL", "folder:own", "train"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package, name, extra, tmp_path, monkeypatch):
    for label in ("a", "b"):
        (tmp_path / "own" / label).mkdir(parents=True)
        for place in range(4):
            (tmp_path / "own" / label / f"{place}.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for module in {package, package.partition(".")[0]}:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as caught:
        data.load(name, data_dir=str(tmp_path / "data"), test=0.25 if name[-3:] == "own" else 0)
    before, behind = "", ""
    if extra == "tfds":
        before = f"data.name = {name!r}, as a data set of TFDS: "
        behind = "; or else digits, the path of an .npz file, or folder:, csv: or hf: with one"
    assert str(caught.value) == (
        f"{before}the package {package} is not installed, expected the extra {extra}: "
        f"pip install '.[{extra}]'{behind}"
    )


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("my_images", "folder:my_images"),
        ("./my_images", "folder:./my_images"),
        ("my_images.csv", "csv:my_images.csv"),
        ("imagefolder:my_images", "folder:my_images"),
        ("Folder:my_images", "folder:my_images"),
        ("fodler:my_images", "folder:my_images"),
        ("huggingface:owner/set", "hf:owner/set"),
    ],
)
def test_a_path_without_its_kind_is_told_with_it(name, meant, installed, tmp_path, monkeypatch):
    (tmp_path / "my_images").mkdir()
    (tmp_path / "my_images.csv").write_text("path,label")
    monkeypatch.chdir(tmp_path)
    if not installed:
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError) as caught:
        data.load(name, data_dir=str(tmp_path / "data"))
    message = str(caught.value)
    assert message.startswith(f"data.name = {name!r}")
    assert message.endswith(f"; did you mean {meant}?") and "\n" not in message


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(404 if "missing" in self.path else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_host_that_answers_is_left_to_tfds(server):
    assert download.unreachable([f"{server}/a.zip", f"{server}/b.zip"]) == ""
    assert download.unreachable([]) == ""


def test_what_a_host_answers_is_told(server):
    host = server.removeprefix("http://")
    assert download.unreachable([f"{server}/missing.zip"]) == f"{host}: HTTP status 404"


def test_a_silent_host_takes_no_longer_than_allowed(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"
        start = time.monotonic()
        reason = download.unreachable([url], seconds=0.5)
        assert time.monotonic() - start < 2
    assert reason == f"{url.split('/')[2]}: no answer in 0.5 s"


def test_a_stuck_address_look_up_takes_no_longer_than_allowed(monkeypatch):
    monkeypatch.setattr(download, "_answer", lambda url, seconds: time.sleep(3) or "")
    start = time.monotonic()
    assert download.unreachable(["https://a/x", "https://b/x"], seconds=0.3).startswith("a: no")
    assert time.monotonic() - start < 2
