"""A user's own data: an .npz file with x_train, y_train, x_test and y_test."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import math
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from collab_jax.data import cache
from collab_jax.data.arrays import Arrays, area_downscale, chunks, target_shape
from collab_jax.errors import UserError, reason

__all__ = ["load"]

_NAMES = ("x_train", "y_train", "x_test", "y_test")
# Above this the arrays are cached uncompressed and memory-mapped.
_LARGEST_IN_MEMORY = 2**30


@dataclasses.dataclass(frozen=True)
class _Member:
    """An array in the file, as its header tells it."""

    path: Path
    name: str
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def load(path: Path, root: Path, image_size: int = 0) -> Arrays:
    """The arrays of an .npz file.

    Args:
        path: the file: x_train and x_test uint8 (N, H, W) or (N, H, W, C), y_train and y_test
            whole numbers (N,), where the classes are 0..m-1 and each has a training image.
        root: folder of cached data, for a file too large for memory.
        image_size: side to reduce the images to; 0: their own.

    Returns:
        The arrays; of a file with more than 1 GiB of images they are cached and memory-mapped.

    Raises:
        UserError: no such file, damaged, or arrays other than those; the message names the file,
            the array, what it is and what was expected.
    """
    path = path.absolute()
    members = _headers(path)
    shape = _check_images(members)
    labels = _check_labels(members)
    reduced = target_shape(shape, image_size, path.name)
    class_names = tuple(str(label) for label in range(int(labels["y_train"].max()) + 1))
    if sum(members[name].nbytes for name in ("x_train", "x_test")) <= _LARGEST_IN_MEMORY:
        images = {name: _in_memory(members[name], shape, reduced) for name in ("x_train", "x_test")}
        return Arrays(
            images["x_train"], labels["y_train"], images["x_test"], labels["y_test"], class_names
        )
    status = path.stat()
    identity = f"{path}\n{status.st_size}\n{status.st_mtime_ns}\n{reduced[0]}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    directory = root / "arrays" / "npz" / f"{path.stem}-{key}"
    with cache.locked(directory):
        if not cache.exists(directory):
            _fill(directory, members, labels, shape, reduced, class_names)
    return cache.open_arrays(directory)


def _in_memory(member: _Member, shape: tuple[int, ...], reduced: tuple[int, ...]) -> np.ndarray:
    images = np.empty((member.shape[0], *reduced), np.uint8)
    filled = 0
    for part in _images(member, shape, reduced):
        images[filled : filled + len(part)] = part
        filled += len(part)
    return images


def _fill(
    directory: Path,
    members: dict[str, _Member],
    labels: dict[str, np.ndarray],
    shape: tuple[int, ...],
    reduced: tuple[int, ...],
    class_names: tuple[str, ...],
) -> None:
    path = members["x_train"].path
    needed = sum(members[name].shape[0] for name in ("x_train", "x_test")) * math.prod(reduced)
    if shutil.disk_usage(directory.parent).free < needed:
        raise UserError(
            f"{directory.parent}: {needed / 2**30:.1f} GiB are needed to cache the images of "
            f"{path}, expected a folder with more room as data.dir"
        )
    with cache.writing(directory) as temporary:
        for split in ("train", "test"):
            member = members[f"x_{split}"]
            with cache.NpyWriter(
                temporary / f"{split}_images.npy", (member.shape[0], *reduced), np.uint8
            ) as writer:
                for images in _images(member, shape, reduced):
                    writer.write(images)
            np.save(temporary / f"{split}_labels.npy", labels[f"y_{split}"])
        cache.describe(temporary, class_names, source=str(path))


def _images(
    member: _Member, shape: tuple[int, ...], reduced: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """The images in chunks: uint8 (n, H, W, C), reduced."""
    if member.fortran_order:
        raise UserError(
            f"{member.path}: {member.name} is in Fortran order, expected C order: write "
            "numpy.ascontiguousarray of it"
        )
    size = math.prod(shape)
    with _opened(member) as read:
        for part in chunks(member.shape[0], size):
            count = part.stop - part.start
            images = np.frombuffer(read(count * size), np.uint8).reshape(count, *shape)
            yield area_downscale(images, *reduced[:2])
        read(0)


def _headers(path: Path) -> dict[str, _Member]:
    """The four arrays' headers."""
    if not path.is_file():
        raise UserError(f"data.name = {path}: no such file, expected an .npz file")
    with _damage(path), zipfile.ZipFile(path) as archive:
        present = [name.removesuffix(".npy") for name in archive.namelist()]
        sizes = {item.filename.removesuffix(".npy"): item.file_size for item in archive.infolist()}
    for name in _NAMES:
        if name not in present:
            others = {other.lower(): other for other in present if other not in _NAMES}
            near = [others[key] for key in difflib.get_close_matches(name, others, 1, 0.5)]
            hint = f"; did you mean {near[0]!r} to be {name}?" if near else ""
            raise UserError(
                f"{path}: no array {name}, expected {', '.join(_NAMES)}; it holds "
                f"{', '.join(map(repr, present[:10])) or 'none'}{hint}"
            )
    members = {}
    for name in _NAMES:
        with _damage(path, name):
            members[name] = _header(path, name)
        member = members[name]
        if member.dtype.hasobject:
            raise UserError(
                f"{path}: {name} holds Python objects, expected "
                f"{'uint8' if name[0] == 'x' else 'whole numbers'} of one shape"
            )
        if member.offset + member.nbytes != sizes[name]:
            raise UserError(
                f"{path}: {name} is damaged: {member.dtype} {member.shape} takes {member.nbytes} "
                f"bytes, but {sizes[name] - member.offset} are there"
            )
    return members


def _header(path: Path, name: str) -> _Member:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"version {version} of the .npy format")
        shape, fortran_order, dtype = readers[version](file)
        return _Member(path, name, shape, fortran_order and len(shape) > 1, dtype, file.tell())


@contextlib.contextmanager
def _opened(member: _Member) -> Iterator[Callable[[int], bytes]]:
    """A function that reads so many bytes of the array; after the last ones the file's checksum
    has been compared."""

    def read(count: int) -> bytes:
        with _damage(member.path, member.name):
            data = file.read(count)
            if count == 0 and file.read(1):
                raise ValueError("bytes after the end")
            if len(data) != count:
                raise ValueError(f"{count - len(data)} bytes are missing")
            return data

    with contextlib.ExitStack() as stack:
        with _damage(member.path, member.name):
            archive = stack.enter_context(zipfile.ZipFile(member.path))
            file: IO[bytes] = stack.enter_context(archive.open(f"{member.name}.npy"))
            file.read(member.offset)
        yield read


@contextlib.contextmanager
def _damage(path: Path, name: str = "") -> Iterator[None]:
    """One line naming the file for whatever a damaged file makes its readers raise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    # zipfile, zlib and NumPy's header parser raise errors of a dozen kinds on damaged bytes.
    except Exception as error:
        which = f"{name} is damaged" if name else "not a readable .npz file"
        raise UserError(
            f"{path}: {which} ({reason(error)}), expected a file written by numpy.savez"
        ) from None


def _check_images(members: dict[str, _Member]) -> tuple[int, ...]:
    """(H, W, C) of the images."""
    shapes = {}
    for name in ("x_train", "x_test"):
        member = members[name]
        where = f"{member.path}: {name} is {member.dtype} {member.shape}"
        if member.dtype != np.uint8:
            convert = (
                "; convert values from 0 to 1 with (255 * x).round().astype('uint8')"
                if member.dtype.kind == "f"
                else ""
            )
            raise UserError(f"{where}, expected uint8 from 0 to 255{convert}")
        if len(member.shape) not in (3, 4):
            raise UserError(f"{where}, expected (images, height, width[, channels])")
        if 0 in member.shape:
            raise UserError(f"{where}, expected at least one image, each with at least one pixel")
        shape = member.shape[1:] if len(member.shape) == 4 else (*member.shape[1:], 1)
        if shape[0] in (1, 3) and shape[1] == shape[2] > 4:
            raise UserError(
                f"{where}, expected channels last: (images, height, width, channels); convert with "
                "x.transpose(0, 2, 3, 1)"
            )
        shapes[name] = shape
    if shapes["x_train"] != shapes["x_test"]:
        raise UserError(
            f"{members['x_test'].path}: an image of x_test is {shapes['x_test']}, expected "
            f"{shapes['x_train']} as in x_train"
        )
    return shapes["x_train"]


def _check_labels(members: dict[str, _Member]) -> dict[str, np.ndarray]:
    """The labels of both splits as int32 (N,)."""
    labels = {}
    for name in ("y_train", "y_test"):
        member = members[name]
        where = f"{member.path}: {name} is {member.dtype} {member.shape}"
        images = members[f"x{name[1:]}"]
        if member.dtype.kind not in "iu" or member.shape != images.shape[:1]:
            raise UserError(
                f"{where}, expected a whole number for each of the {images.shape[0]} images of "
                f"x{name[1:]}"
            )
        with _opened(member) as read:
            values = np.frombuffer(read(member.nbytes), member.dtype)
            read(0)
        labels[name] = values
        if values.min() < 0:
            raise UserError(
                f"{member.path}: {name} holds {values.min()} at {values.argmin()}, expected "
                "labels from 0 on"
            )
    path = members["y_train"].path
    classes = np.unique(labels["y_train"])
    gaps = np.flatnonzero(classes != np.arange(len(classes)))
    if gaps.size:
        raise UserError(
            f"{path}: y_train has no image of class {gaps[0]} but one of class {classes[-1]}, "
            "expected every class from 0 to the highest"
        )
    if len(classes) < 2:
        raise UserError(f"{path}: y_train holds class 0 alone, expected at least two classes")
    highest = labels["y_test"].max()
    if highest >= len(classes):
        raise UserError(
            f"{path}: y_test holds {highest} at {labels['y_test'].argmax()}, expected labels from "
            f"0 to {len(classes) - 1} as in y_train"
        )
    return {name: values.astype(np.int32) for name, values in labels.items()}
