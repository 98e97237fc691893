"""Fashion-MNIST's real files from Debian's package dataset-fashion-mnist, which must be installed:
apt-get install dataset-fashion-mnist."""

import gzip
import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compare_runs import own_lines

from collab_jax import data
from collab_jax.data import fashion_mnist
from collab_jax.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = [
    f"{split}-{kind}-ubyte.gz"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "collab_jax.data.fashion_mnist", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )


def registered():
    from tensorflow_datasets import builder_cls

    return builder_cls("fashion_mnist").url_infos


def test_command_restores_the_files_that_tfds_has_registered(tmp_path):
    manual = tmp_path / "manual"
    result = run(fashion_mnist.DEBIAN_DIR, manual)
    assert (result.returncode, own_lines(result.stderr)) == (0, "")
    infos = {info.filename: info for info in registered().values()}
    assert sorted(infos) == sorted(NAMES) == sorted(path.name for path in manual.iterdir())
    for name, info in infos.items():
        restored = (manual / name).read_bytes()
        assert hashlib.sha256(restored).hexdigest() == info.checksum
        assert len(restored) == int(info.size)
    # Restored files come through unchanged.
    again = run(manual, tmp_path / "again")
    assert again.returncode == 0, again.stderr
    for name in NAMES:
        assert (tmp_path / "again" / name).read_bytes() == (manual / name).read_bytes()


def test_command_refuses_other_files(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(gzip.compress(b"x" * 20))
    for source, message in ((tmp_path, "not the published file"), (tmp_path / "no", "cannot be")):
        result = run(source, tmp_path / "manual")
        assert result.returncode == 2
        stderr = own_lines(result.stderr)
        assert stderr.startswith("error: ") and stderr.count("\n") == 1
        assert str(source / NAMES[0]) in result.stderr and message in result.stderr
    assert not (tmp_path / "manual").exists()
    assert run("a", "b", "c").returncode == 2


def test_not_a_gzip_file():
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz: not a gzip file"):
        fashion_mnist.published("t10k-labels-idx1-ubyte.gz", b"PK\x03\x04" * 10)


def idx(name, header):
    return np.frombuffer(
        gzip.decompress((fashion_mnist.DEBIAN_DIR / name).read_bytes()), np.uint8, offset=header
    )


@pytest.mark.slow
def test_real_images_through_tfds_builder_with_no_network(tmp_path, caplog):
    assert fashion_mnist.DEBIAN_DIR.is_dir(), "install the package dataset-fashion-mnist"
    with caplog.at_level(logging.WARNING):
        dataset = data.load("fashion_mnist", data_dir=str(tmp_path))
    assert not caplog.records  # The files are those registered.
    assert dataset.train.image_shape == (28, 28, 1)
    assert np.bincount(dataset.train.labels).tolist() == [6000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.class_names[0] == "T-shirt/top" and dataset.class_names[9] == "Ankle boot"
    # As published for this training set.
    np.testing.assert_allclose((dataset.mean, dataset.std), [[0.2860], [0.3530]], atol=5e-5)
    for split, prefix in ((dataset.train, "train"), (dataset.test, "t10k")):
        images = idx(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 784)
        labels = idx(f"{prefix}-labels-idx1-ubyte.gz", 8)
        expected = sorted(
            image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True)
        )
        found = sorted(
            image.tobytes() + bytes([label])
            for image, label in zip(split.images, split.labels, strict=True)
        )
        assert found == expected
