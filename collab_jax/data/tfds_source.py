"""Image-classification data sets of TensorFlow Datasets (TFDS), as cached arrays."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from collab_jax.data import cache, tfds_files
from collab_jax.data.archive_formats import ARCHIVES
from collab_jax.data.arrays import Arrays, area_downscale, target_shape
from collab_jax.data.names import meant_for
from collab_jax.errors import UserError, cut, needs, reason
from collab_jax.files import atomic

__all__ = ["load"]

_NAME = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9_.-]+)?(:\d+\.\d+\.\d+)?")
_CHUNK = 1000
_OWN = (*ARCHIVES, "digits")
_OTHERS = "digits, the path of an .npz file, or folder:, csv: or hf: with one"

_log = logging.getLogger(__name__)


def load(name: str, root: Path, manual_dir: Path, image_size: int = 0) -> Arrays:
    """The cached arrays of a TFDS data set, made on first use.

    The first use prepares the data set with TFDS's own builder in a child process (the only place
    where TensorFlow is imported), decodes it once, and writes the arrays as .npy files.

    Args:
        name: such as `cifar10`, `imagenet_resized/32x32`, or `cifar10:3.0.2` for one version.
        root: folder of prepared data sets, downloads and arrays.
        manual_dir: folder of archives fetched by hand.
        image_size: side to reduce the images to when they are cached; 0: their own.

    Returns:
        The arrays, memory-mapped. The test split is `test`, or `validation` where there is none.

    Raises:
        UserError: no such data set, none of images of one size with one label each, its files are
            neither there nor to be downloaded, or are damaged.
        RunError: the disk is full.
    """
    builder = _builder(name, root)
    features = _Features(builder)
    shape = target_shape(features.shape, image_size, name)
    relative = Path(builder.data_dir).relative_to(root)
    directory = root / "arrays" / relative
    sources = directory.with_name(f"{directory.name}.sources.json")
    if image_size:
        directory = directory.with_name(f"{directory.name}-{image_size}px")
    if not cache.exists(directory):
        # One lock for all sizes: they share the prepared data set.
        with cache.locked(root / "arrays" / relative):
            if not cache.exists(directory):
                _prepare(name, builder, root, manual_dir, sources)
                _decode(_builder(name, root), directory, shape)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        unverified = json.loads(sources.read_text(encoding="utf-8"))["unverified"]
        if unverified:
            _log.warning(
                "%s was made from %s: not the file whose SHA-256 TFDS has registered",
                name,
                ", ".join(unverified),
            )
    return cache.open_arrays(directory)


def _builder(name: str, root: Path) -> Any:
    try:
        with needs("tfds"), _quiet():
            import array_record  # noqa: F401  (TFDS imports it, and says less without it)
            import tensorflow_datasets as tfds
    except UserError as error:
        text = f"data.name = {name!r}, as a data set of TFDS: {error}; or else {_OTHERS}"
        raise UserError(text + meant_for(name, _OWN)) from None
    with _quiet():
        try:
            if _NAME.fullmatch(name):
                return tfds.builder(name, data_dir=root)
        except tfds.core.DatasetNotFoundError:
            pass
        # An unknown configuration or version; the end of TFDS's message names those known.
        except (ValueError, AssertionError, RuntimeError) as error:
            end = " ".join(str(error).split()).rpartition('}": ')[2]
            raise UserError(f"data.name = {name!r}: {cut(end, 300)}") from None
        known = [*tfds.list_builders(with_community_datasets=False), *_OWN]
        raise UserError(
            f"data.name = {name!r}: no such data set, expected a name of TFDS such as cifar10 or "
            f"imagenet_resized/32x32, {_OTHERS}{meant_for(name, known)}"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TFDS's remarks on what it does not find yet, and on OpenCV."""
    from absl import logging as absl_logging

    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        absl_logging.set_verbosity(before)


class _Features:
    """The image and the label of a builder's examples.

    Attributes:
        image: the image's key.
        label: the label's key.
        shape: (H, W, C) of every image.
    """

    def __init__(self, builder: Any):
        import tensorflow_datasets as tfds

        keys = builder.info.supervised_keys
        features = builder.info.features
        if keys is None or len(keys) != 2 or not all(isinstance(key, str) for key in keys):
            raise UserError(
                f"data set {builder.name} has no (image, label) pairs, expected an "
                "image-classification data set"
            )
        self.image, self.label = keys
        if not isinstance(features[self.image], tfds.features.Image) or not isinstance(
            features[self.label], tfds.features.ClassLabel
        ):
            raise UserError(
                f"data set {builder.name} has pairs of {self.image} and {self.label}, expected an "
                "image-classification data set, with an Image and a ClassLabel"
            )
        image: Any = features[self.image]
        if None in image.shape:
            raise UserError(
                f"data set {builder.name} has images of shape {image.shape}, which vary in size; "
                "expected one size: resize them and name them by folder: or csv:"
            )
        if np.dtype(image.np_dtype) != np.uint8:
            raise UserError(
                f"data set {builder.name} has {np.dtype(image.np_dtype)} images, expected uint8"
            )
        self.shape: tuple[int, ...] = tuple(image.shape)


def _is_prepared(builder: Any) -> bool:
    return (Path(builder.data_dir) / "dataset_info.json").is_file()


def _prepare(name: str, builder: Any, root: Path, manual_dir: Path, sources_file: Path) -> None:
    """Prepare the data set in a child process, unless it is."""
    if _is_prepared(builder):
        return
    downloads = root / "downloads"
    if builder.name == "fashion_mnist":
        # Imported here because it is also a program of its own, run with `python -m`.
        from collab_jax.data import fashion_mnist

        manual_dir = fashion_mnist.from_debian(downloads, manual_dir, builder.url_infos)
    sources = tfds_files.find(name, builder, downloads, manual_dir)
    unverified = [str(path) for path in sources.unverified]
    _log.info("preparing %s in %s", name, root)
    with cache.disk_errors(root):
        # Before preparing, so that no end of the process can lose it.
        atomic.write_json(sources_file, {"unverified": unverified})
        # Extracted afresh and removed: TFDS would go on using what an earlier archive left.
        with tempfile.TemporaryDirectory(
            prefix=atomic.temporary_neighbour(sources_file).name, dir=sources_file.parent
        ) as extracted:
            error = _run_child(
                {
                    "name": name,
                    "data_dir": str(root),
                    "download_dir": str(downloads),
                    "manual_dir": str(sources.manual_dir),
                    "extract_dir": extracted,
                    "url_infos": sources.url_infos,
                    "progress": sys.stderr.isatty(),
                }
            )
    # With an error too: another process without a common lock may have been faster.
    if error and not _is_prepared(builder):
        origin = ", ".join(map(str, sources.files)) or sources.manual_dir
        raise UserError(f"data set {name} cannot be prepared from {origin}: {error}")


def _run_child(request: dict[str, Any]) -> str:
    """Run the preparing program; what went wrong, "" where nothing did."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONWARNINGS": "ignore",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    program = Path(__file__).with_name("tfds_prepare.py")
    # -P: its own folder must not lead the search path, where modules here have common names.
    with subprocess.Popen(
        [sys.executable, "-P", str(program)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if request["progress"] else subprocess.PIPE,
        text=True,
    ) as child:
        try:
            output, messages = child.communicate(json.dumps(request))
        except BaseException:
            child.kill()
            raise
    try:
        error = json.loads(output.splitlines()[-1])["error"]
    except (IndexError, ValueError, KeyError):
        last = (messages or "").strip().splitlines()[-1:]
        error = f"the preparing process ended with code {child.returncode} {' '.join(last)}"
    if "No module named 'tensorflow'" in error:
        error = "TensorFlow is not installed, expected the extra tfds: pip install '.[tfds]'"
    return cut(" ".join(error.split()), 400)


def _decode(builder: Any, directory: Path, shape: tuple[int, ...]) -> None:
    """Write the arrays of a prepared data set."""
    features, info = _Features(builder), builder.info
    test = next((split for split in ("test", "validation") if split in info.splits), None)
    if test is None or "train" not in info.splits:
        raise UserError(
            f"data set {builder.name} has the splits {', '.join(info.splits)}, expected train, "
            "and test or validation"
        )
    classes = info.features[features.label].num_classes
    with cache.writing(directory) as temporary:
        for split, part in (("train", "train"), (test, "test")):
            count = info.splits[split].num_examples
            if count == 0:
                raise UserError(f"data set {builder.name} has no images in its split {split}")
            labels = []
            with cache.NpyWriter(
                temporary / f"{part}_images.npy", (count, *shape), np.uint8
            ) as writer:
                for examples in _examples(builder, split, count):
                    images = np.stack([example[features.image] for example in examples])
                    writer.write(area_downscale(images, *shape[:2]))
                    labels.extend(int(example[features.label]) for example in examples)
            outside = next((label for label in labels if not 0 <= label < classes), None)
            if outside is not None:
                raise UserError(
                    f"data set {builder.name} has the label {outside} in its split {split}, "
                    f"expected 0 to {classes - 1}"
                )
            np.save(temporary / f"{part}_labels.npy", np.asarray(labels, np.int32))
        names = tuple(info.features[features.label].names)
        cache.describe(temporary, names, source=info.full_name, test_split=test)


def _examples(builder: Any, split: str, count: int) -> Iterator[list[dict[str, Any]]]:
    """The decoded examples in chunks."""
    try:
        source = builder.as_data_source(split)
    except NotImplementedError:
        raise UserError(
            f"{builder.data_dir} was prepared as {builder.info.file_format.value}, expected "
            "array_record: give another folder as data.dir"
        ) from None
    for start in range(0, count, _CHUNK):
        try:
            with _quiet():
                examples = source.__getitems__(list(range(start, min(start + _CHUNK, count))))
        # The reader and the decoders raise errors of many kinds on damaged records.
        except Exception as error:
            raise UserError(
                f"{builder.data_dir}: the prepared data are damaged ({reason(error)}); delete this "
                "folder and they are prepared again"
            ) from None
        yield examples
