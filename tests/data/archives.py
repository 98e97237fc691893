"""Small random data sets as archives in the layouts in which they are published."""

from __future__ import annotations

import dataclasses
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

CIFAR10_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
STL10_NAMES = (
    *("airplane", "bird", "car", "cat", "deer"),
    *("dog", "horse", "monkey", "ship", "truck"),
)


@dataclasses.dataclass(frozen=True)
class Contents:
    """What an archive holds: uint8 (N, H, W, C) images and int (N,) labels of both splits."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def random_contents(
    num_classes: int, side: int, train: int, test: int, channels: int = 3, seed: int = 0
) -> Contents:
    """Distinct random images; labels go round the classes."""
    random = np.random.default_rng(seed)

    def images(count: int) -> np.ndarray:
        return random.integers(0, 256, (count, side, side, channels), dtype=np.uint8)

    labels = np.arange(train) % num_classes, np.arange(test) % num_classes
    return Contents(images(train), labels[0], images(test), labels[1])


def cifar10(folder: Path, train: int = 100, test: int = 20) -> Contents:
    """cifar-10-binary.tar.gz: records of a label and 3 x 32 x 32 pixels, five training files."""
    contents = random_contents(10, 32, train, test)
    records = _cifar_records(contents.train_images, contents.train_labels)
    per_file = train // 5
    files = {
        f"cifar-10-batches-bin/data_batch_{i + 1}.bin": b"".join(
            records[i * per_file : (i + 1) * per_file]
        )
        for i in range(5)
    }
    test_records = _cifar_records(contents.test_images, contents.test_labels)
    files["cifar-10-batches-bin/test_batch.bin"] = b"".join(test_records)
    # The published file ends with an empty line.
    files["cifar-10-batches-bin/batches.meta.txt"] = _lines(CIFAR10_NAMES) + b"\n"
    write_tar(folder / "cifar-10-binary.tar.gz", files)
    return contents


def cifar100(path: Path, train: int = 200, test: int = 100) -> Contents:
    """cifar-100-binary.tar.gz: records of a coarse label, a fine label and 3 x 32 x 32 pixels.

    The coarse label is the fine one modulo 20.
    """
    contents = random_contents(100, 32, train, test)
    files = {
        f"cifar-100-binary/{split}.bin": b"".join(
            bytes([label % 20]) + record
            for label, record in zip(labels, _cifar_records(images, labels), strict=True)
        )
        for split, images, labels in (
            ("train", contents.train_images, contents.train_labels),
            ("test", contents.test_images, contents.test_labels),
        )
    }
    files["cifar-100-binary/fine_label_names.txt"] = _lines(f"fine{i}" for i in range(100))
    files["cifar-100-binary/coarse_label_names.txt"] = _lines(f"coarse{i}" for i in range(20))
    write_tar(path, files)
    return contents


class _Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its text, and NumPy's functions under the names of then."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        if len(value) < 256:
            self.write(pickle.SHORT_BINSTRING + struct.pack("<B", len(value)) + value)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2_pickle(value) -> bytes:
    """The bytes that CIFAR's authors' Python wrote, by pickle's protocol 2."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def cifar10_python(folder: Path, train: int = 100, test: int = 20) -> Contents:
    """cifar-10-python.tar.gz: pickled tables; the images and labels of `cifar10`."""
    contents = random_contents(10, 32, train, test)

    def table(batch: str, images: np.ndarray, labels: np.ndarray) -> bytes:
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        names = [f"image_s_{i:06}.png".encode() for i in range(len(images))]
        return python2_pickle(
            {
                b"batch_label": batch.encode(),
                b"labels": labels.tolist(),
                b"data": flat,
                b"filenames": names,
            }
        )

    per_file = train // 5
    files = {
        f"data_batch_{i + 1}": table(
            f"training batch {i + 1} of 5",
            contents.train_images[i * per_file : (i + 1) * per_file],
            contents.train_labels[i * per_file : (i + 1) * per_file],
        )
        for i in range(5)
    }
    files["test_batch"] = table("testing batch 1 of 1", contents.test_images, contents.test_labels)
    files["batches.meta"] = python2_pickle(
        {
            b"num_cases_per_batch": per_file,
            b"label_names": [name.encode() for name in CIFAR10_NAMES],
            b"num_vis": 3072,
        }
    )
    files["readme.html"] = b"<meta>"
    named = {f"cifar-10-batches-py/{name}": data for name, data in files.items()}
    write_tar(folder / "cifar-10-python.tar.gz", named)
    return contents


def cifar100_python(folder: Path, train: int = 200, test: int = 100) -> Contents:
    """cifar-100-python.tar.gz: pickled tables; the images and labels of `cifar100`."""
    contents = random_contents(100, 32, train, test)
    files = {}
    for split, images, labels in (
        ("train", contents.train_images, contents.train_labels),
        ("test", contents.test_images, contents.test_labels),
    ):
        files[split] = python2_pickle(
            {
                b"filenames": [b"x.png"] * len(images),
                b"batch_label": b"training batch 1 of 1",
                b"fine_labels": labels.tolist(),
                b"coarse_labels": (labels % 20).tolist(),
                b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
            }
        )
    files["meta"] = python2_pickle(
        {
            b"fine_label_names": [f"fine{i}".encode() for i in range(100)],
            b"coarse_label_names": [f"coarse{i}".encode() for i in range(20)],
        }
    )
    named = {f"cifar-100-python/{name}": data for name, data in files.items()}
    write_tar(folder / "cifar-100-python.tar.gz", named)
    return contents


def stl10(folder: Path, train: int = 30, test: int = 20) -> Contents:
    """stl10_binary.tar.gz: 3 x 96 x 96 pixels column by column, labels from 1 to 10."""
    contents = random_contents(10, 96, train, test)
    unlabelled = random_contents(10, 96, 4, 0, seed=1)
    files = {
        "train_X.bin": contents.train_images.transpose(0, 3, 2, 1).tobytes(),
        "train_y.bin": (contents.train_labels + 1).astype(np.uint8).tobytes(),
        "test_X.bin": contents.test_images.transpose(0, 3, 2, 1).tobytes(),
        "test_y.bin": (contents.test_labels + 1).astype(np.uint8).tobytes(),
        "unlabeled_X.bin": unlabelled.train_images.transpose(0, 3, 2, 1).tobytes(),
        "class_names.txt": _lines(STL10_NAMES),
    }
    named = {f"stl10_binary/{name}": data for name, data in files.items()}
    write_tar(folder / "stl10_binary.tar.gz", named)
    return contents


def imagenet32(folder: Path, train: int = 40, test: int = 20) -> Contents:
    """Imagenet32_{train,val}_npz.zip: .npz files of flat 3 x 32 x 32 pixels, labels from 1."""
    contents = random_contents(1000, 32, train, test)

    def npz(images: np.ndarray, labels: np.ndarray) -> bytes:
        file = io.BytesIO()
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        np.savez(file, data=flat, labels=labels + 1)
        return file.getvalue()

    half = train // 2
    with zipfile.ZipFile(folder / "Imagenet32_train_npz.zip", "w") as archive:
        for i, part in enumerate((slice(0, half), slice(half, train))):
            archive.writestr(
                f"Imagenet32_train_npz/train_data_batch_{i + 1}.npz",
                npz(contents.train_images[part], contents.train_labels[part]),
            )
    with zipfile.ZipFile(folder / "Imagenet32_val_npz.zip", "w") as archive:
        archive.writestr(
            "Imagenet32_val_npz/val_data.npz", npz(contents.test_images, contents.test_labels)
        )
    return contents


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    """A .tar.gz of files by name, any name."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _cifar_records(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    return [
        bytes([label]) + image.transpose(2, 0, 1).tobytes()
        for image, label in zip(images, labels, strict=True)
    ]


def _lines(names) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()
