"""How CIFAR and STL-10 are published: which files, under which checksums, in which layouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from collab_jax.data.cifar_pickle import read_pickle

__all__ = ["ARCHIVES", "SHAPES", "Archive", "Examples"]

Examples = tuple[np.ndarray, np.ndarray]
"""uint8 (N, H, W, 3) images and whole numbers (N,), their labels."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        url: where it is.
        checksum: `sha256:...` or `md5:...` of the published file.
        size: of the published file in bytes.
        folder: that the files in it stand in.
        train: the training split's files.
        test: the test split's.
        names: the file of class names.
        read: a split's files to its examples.
        read_names: the file of class names to the names.
    """

    url: str
    checksum: str
    size: int
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    read: Callable[[list[bytes]], Examples]
    read_names: Callable[[bytes], tuple[str, ...]]

    @property
    def filename(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def members(self) -> frozenset[str]:
        """The files that are read."""
        return frozenset(f"{self.folder}/{name}" for name in (*self.train, *self.test, self.names))

    def contents(self, files: Mapping[str, bytes]) -> tuple[Examples, Examples, tuple[str, ...]]:
        """Training and test examples and the class names, of the files by name."""
        train = self.read([files[f"{self.folder}/{name}"] for name in self.train])
        test = self.read([files[f"{self.folder}/{name}"] for name in self.test])
        return train, test, self.read_names(files[f"{self.folder}/{self.names}"])


def _planes(data: np.ndarray) -> np.ndarray:
    """Colour planes (N, 3 * 32 * 32) to uint8 (N, 32, 32, 3)."""
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _pickles(labels_key: str, files: list[bytes]) -> Examples:
    """Pickled tables of pixels and labels."""
    tables = [read_pickle(file) for file in files]
    labels = [label for table in tables for label in table[labels_key]]
    return _planes(np.concatenate([table["data"] for table in tables])), np.asarray(labels)


def _pickled_names(key: str, file: bytes) -> tuple[str, ...]:
    return tuple(map(str, read_pickle(file)[key]))


def _records(label_bytes: int, files: list[bytes]) -> Examples:
    """Records of labels, the last of which counts, and 3 x 32 x 32 pixels."""
    data = np.frombuffer(b"".join(files), np.uint8)
    records = data.reshape(-1, label_bytes + 3 * 32 * 32)
    return _planes(records[:, label_bytes:]), records[:, label_bytes - 1]


def _columns(files: list[bytes]) -> Examples:
    """STL-10: 3 x 96 x 96 pixels column by column; labels count from 1."""
    images, labels = (np.frombuffer(file, np.uint8) for file in files)
    upright = images.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    return np.ascontiguousarray(upright), labels.astype(np.int32) - 1


def _lines(file: bytes) -> tuple[str, ...]:
    return tuple(line.strip() for line in file.decode().splitlines() if line.strip())


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

ARCHIVES = {
    "cifar10": (
        Archive(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            checksum="md5:c58f30108f718f92721af3b95e74349a",
            size=170_498_071,
            folder="cifar-10-batches-py",
            train=_BATCHES,
            test=("test_batch",),
            names="batches.meta",
            read=partial(_pickles, "labels"),
            read_names=partial(_pickled_names, "label_names"),
        ),
        Archive(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            checksum="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            size=170_052_171,
            folder="cifar-10-batches-bin",
            train=tuple(f"{name}.bin" for name in _BATCHES),
            test=("test_batch.bin",),
            names="batches.meta.txt",
            read=partial(_records, 1),
            read_names=_lines,
        ),
    ),
    "cifar100": (
        Archive(
            url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            checksum="md5:eb9058c3a382ffc7106e4002c42a8d85",
            size=169_001_437,
            folder="cifar-100-python",
            train=("train",),
            test=("test",),
            names="meta",
            read=partial(_pickles, "fine_labels"),
            read_names=partial(_pickled_names, "fine_label_names"),
        ),
        Archive(
            url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            checksum="sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            size=168_513_733,
            folder="cifar-100-binary",
            train=("train.bin",),
            test=("test.bin",),
            names="fine_label_names.txt",
            read=partial(_records, 2),
            read_names=_lines,
        ),
    ),
    "stl10": (
        Archive(
            url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            checksum="md5:91f7769df0f17e558f3565bffb0c7dfb",
            size=2_640_397_119,
            folder="stl10_binary",
            train=("train_X.bin", "train_y.bin"),
            test=("test_X.bin", "test_y.bin"),
            names="class_names.txt",
            read=_columns,
            read_names=_lines,
        ),
    ),
}
"""The archives of each data set that is read here; the first is the one that is downloaded."""
SHAPES = {"cifar10": (32, 32, 3), "cifar100": (32, 32, 3), "stl10": (96, 96, 3)}
