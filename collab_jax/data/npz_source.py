"""A user's own data: an .npz file with x_train, y_train, x_test and y_test."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from collab_jax.data import subsets
from collab_jax.data.arrays import Arrays, area_downscale, chunks, target_shape
from collab_jax.errors import UserError, reason

__all__ = ["load"]

_NAMES = ("x_train", "y_train", "x_test", "y_test")
_CLASS_NAMES = "class_names"


@dataclasses.dataclass(frozen=True)
class _Member:
    """An array in the file, as its header tells it."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.path}: {self.name} is {self.dtype} {self.shape}"

    def read(self) -> np.ndarray:
        """The array; the file's checksum has been compared."""
        with _damage(self.path, self.name), zipfile.ZipFile(self.path) as archive:
            with archive.open(f"{self.name}.npy") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):
                    raise ValueError("bytes after the end")
        return array


def load(path: Path, image_size: int = 0, test: float = 0.0) -> Arrays:
    """The arrays of an .npz file, in memory.

    Args:
        path: the file: x_train and x_test uint8 (N, H, W) or (N, H, W, C), y_train and y_test
            whole numbers (N,), where the classes are 0..m-1 and each has a training image; and
            class_names, text (m,), where it is there.
        image_size: side to reduce the images to; 0: their own.
        test: the fraction of the images to test with, where the file has no x_test; else 0.

    Returns:
        The arrays.

    Raises:
        UserError: no such file, damaged, or arrays other than those; the message names the file,
            the array, what it is and what was expected.
    """
    path = path.absolute()
    members = _headers(path, test)
    shape = _check_images(members)
    labels = _labels(members)
    class_names = _class_names(members, labels)
    reduced = target_shape(shape, image_size, path.name)
    images = {
        name: _reduced(members[name].read().reshape(-1, *shape), reduced)
        for name in ("x_train", "x_test")
        if name in members
    }
    if "x_test" in images:
        arrays = images["x_train"], labels["y_train"], images["x_test"], labels["y_test"]
    else:
        x, y = images["x_train"], labels["y_train"]
        rows = subsets.hold_out_test(y, test, name=path.name)
        arrays = np.delete(x, rows, 0), np.delete(y, rows), x[rows], y[rows]
    return Arrays(*arrays, class_names)


def _reduced(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if images.shape[1:] == shape:
        return np.ascontiguousarray(images)
    reduced = np.empty((len(images), *shape), np.uint8)
    for part in chunks(len(images), images[:1].nbytes):
        reduced[part] = area_downscale(images[part], *shape[:2])
    return reduced


def _headers(path: Path, test: float) -> dict[str, _Member]:
    """The arrays' headers: of training and test images and labels, or of the former alone."""
    if not path.is_file():
        raise UserError(f"data.name = {path}: no such file, expected an .npz file")
    with _damage(path), zipfile.ZipFile(path) as archive:
        present = [name.removesuffix(".npy") for name in archive.namelist()]
        sizes = {item.filename.removesuffix(".npy"): item.file_size for item in archive.infolist()}
    own_test = [name for name in ("x_test", "y_test") if name in present]
    if test and own_test:
        raise UserError(
            f"data.test = {test:g}: expected 0 for {path}, which has {' and '.join(own_test)}"
        )
    expected = _NAMES[:2] if test else _NAMES
    for name in expected:
        if name not in present:
            others = {other.lower(): other for other in present if other not in _NAMES}
            near = [others[key] for key in difflib.get_close_matches(name, others, 1, 0.5)]
            hint = f"; did you mean {near[0]!r} to be {name}?" if near else ""
            if not near and not own_test and name == "x_test":
                hint = "; or data.test=0.2 to test with a fifth of x_train"
            raise UserError(
                f"{path}: no array {name}, expected {', '.join(expected)}; it holds "
                f"{', '.join(map(repr, present[:10])) or 'none'}{hint}"
            )
    members = {}
    for name in (*expected, *({_CLASS_NAMES} & set(present))):
        with _damage(path, name):
            member, offset = _header(path, name)
        if member.dtype.hasobject:
            kind = {"x": "uint8", "y": "whole numbers", "c": "text"}[name[0]]
            remedy = "; convert with numpy.array(names, str)" if name == _CLASS_NAMES else ""
            raise UserError(
                f"{path}: {name} holds Python objects, expected {kind} of one shape{remedy}"
            )
        nbytes = math.prod(member.shape) * member.dtype.itemsize
        if offset + nbytes != sizes[name]:
            raise UserError(
                f"{path}: {name} is damaged: {member.dtype} {member.shape} takes {nbytes} bytes, "
                f"but {sizes[name] - offset} are there"
            )
        members[name] = member
    return members


def _header(path: Path, name: str) -> tuple[_Member, int]:
    """An array's header and how many bytes it takes."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"version {version} of the .npy format")
        shape, _, dtype = readers[version](file)
        return _Member(path, name, shape, dtype), file.tell()


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
        if name not in members:
            continue
        member = members[name]
        if member.dtype != np.uint8:
            convert = (
                "; convert values from 0 to 1 with (255 * x).round().astype('uint8')"
                if member.dtype.kind == "f"
                else ""
            )
            raise UserError(f"{member}, expected uint8 from 0 to 255{convert}")
        if len(member.shape) not in (3, 4):
            raise UserError(f"{member}, expected (images, height, width[, channels])")
        if 0 in member.shape:
            raise UserError(f"{member}, expected at least one image, each with at least one pixel")
        shape = member.shape[1:] if len(member.shape) == 4 else (*member.shape[1:], 1)
        # As channels last these would be a few rows high, with more channels than rows.
        if shape[2] > 4 and shape[0] < min(shape[1:]):
            raise UserError(
                f"{member}, expected channels last: (images, height, width, channels); convert "
                "with x.transpose(0, 2, 3, 1)"
            )
        shapes[name] = shape
    first, *others = shapes.items()
    for name, shape in others:
        if shape != first[1]:
            raise UserError(
                f"{members[name].path}: an image of {name} is {shape}, expected {first[1]} as in "
                f"{first[0]}"
            )
    return first[1]


def _labels(members: dict[str, _Member]) -> dict[str, np.ndarray]:
    """The labels of each split as int32 (N,)."""
    labels = {}
    for name in ("y_train", "y_test"):
        if name not in members:
            continue
        member, images = members[name], members[f"x{name[1:]}"]
        if member.dtype.kind not in "iu" or member.shape != images.shape[:1]:
            raise UserError(
                f"{member}, expected a whole number for each of the {images.shape[0]} images of "
                f"x{name[1:]}{_remedy(member, images.shape[0])}"
            )
        values = labels[name] = member.read()
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
    if "y_test" in labels and labels["y_test"].max() >= len(classes):
        highest = labels["y_test"].max()
        raise UserError(
            f"{path}: y_test holds {highest} at {labels['y_test'].argmax()}, expected labels from "
            f"0 to {len(classes) - 1} as in y_train"
        )
    return {name: values.astype(np.int32) for name, values in labels.items()}


def _remedy(member: _Member, images: int) -> str:
    """How to make labels of a usual form whole numbers (N,), "" for other forms."""
    shape, y = member.shape, member.name
    if shape == (images, 1):
        return f"; convert with {y}.ravel().astype('int64')"
    if len(shape) == 2 and shape[0] == images:
        return f"; convert one-hot labels with {y}.argmax(1)"
    if shape == (images,) and member.dtype.kind in "fb":
        return f"; convert with {y}.astype('int64')"
    if shape == (images,) and member.dtype.kind in "SU":
        return f"; convert with class_names, {y} = numpy.unique({y}, return_inverse=True)"
    return ""


def _class_names(members: dict[str, _Member], labels: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The names in the file, or the classes' numbers."""
    classes = int(labels["y_train"].max()) + 1
    if _CLASS_NAMES not in members:
        return tuple(map(str, range(classes)))
    member = members[_CLASS_NAMES]
    if member.dtype.kind not in "US" or member.shape != (classes,):
        raise UserError(f"{member}, expected text for each of the {classes} classes of y_train")
    array = member.read()
    with _damage(member.path, member.name):
        names = tuple(map(str, np.char.decode(array) if member.dtype.kind == "S" else array))
    if len(set(names)) < classes or not all(name.strip() for name in names):
        raise UserError(
            f"{member.path}: class_names has an empty or a repeated name, expected {classes}"
        )
    return names
