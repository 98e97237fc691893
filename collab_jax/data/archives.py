"""CIFAR-10, CIFAR-100 and STL-10 from the archives in which their authors publish them."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tarfile
from pathlib import Path

import numpy as np

from collab_jax.data import cache, download
from collab_jax.data.archive_formats import ARCHIVES, SHAPES, Archive
from collab_jax.data.arrays import Arrays, area_downscale, chunks, target_shape
from collab_jax.errors import UserError, reason

__all__ = ["load"]

# Bytes of a file in an archive; STL-10's test images take 221 MB.
_LARGEST = 2**29

_log = logging.getLogger(__name__)


def load(name: str, root: Path, manual_dir: Path, image_size: int = 0) -> Arrays:
    """The cached arrays of one of `ARCHIVES`, in the archive's order, made on first use.

    Args:
        name: the data set.
        root: folder of downloads and arrays.
        manual_dir: folder of archives fetched by hand; what lies there is used as it is.
        image_size: side to reduce the images to when they are cached; 0: their own.

    Raises:
        UserError: no archive is there or to be downloaded, or it is damaged.
        RunError: the disk is full.
    """
    shape = target_shape(SHAPES[name], image_size, name)
    directory = root / "arrays" / "archives" / (f"{name}-{image_size}px" if image_size else name)
    if not cache.exists(directory):
        with cache.locked(directory):
            if not cache.exists(directory):
                archive, path = _find(name, root / "downloads", manual_dir)
                _fill(directory, archive, path, shape)
    with contextlib.suppress(OSError, ValueError):
        about = cache.description(directory)
        if not about.get("published", True):
            _log.warning(
                "%s was made from %s: not the published file by its checksum", name, about["source"]
            )
    return cache.open_arrays(directory)


def _find(name: str, downloads: Path, manual_dir: Path) -> tuple[Archive, Path]:
    """An archive of the data set and where it lies, after a download if need be."""
    archives = ARCHIVES[name]
    for archive in archives:
        stem = archive.filename.removesuffix(".tar.gz")
        places = [
            manual_dir / archive.filename,
            downloads / archive.filename,
            # Under the names of TFDS, which prepends the host and appends a checksum.
            *sorted((downloads / name).glob(f"*{stem}*.tar.gz")),
        ]
        for path in places:
            if path.is_file():
                return archive, path
    archive = archives[0]
    path = downloads / archive.filename
    without = download.unreachable([archive.url])
    if without:
        names = " or ".join(each.filename for each in archives)
        urls = " or ".join(each.url for each in archives)
        raise UserError(
            f"data set {name} is not in {downloads.parent} and cannot be downloaded ({without}): "
            f"looked in {manual_dir} for {names}; put what {urls} gives there, under that name"
        )
    with cache.disk_errors(downloads):
        downloads.mkdir(parents=True, exist_ok=True)
    download.fetch(archive.url, archive.checksum, archive.size, path)
    return archive, path


def _fill(directory: Path, archive: Archive, path: Path, shape: tuple[int, ...]) -> None:
    _log.info("reading %s", path)
    try:
        *splits, class_names = archive.contents(_members(archive, path))
        for images, labels in splits:
            if len(images) != len(labels) or not len(labels):
                raise ValueError(f"{len(images)} images and {len(labels)} labels")
            if labels.min() < 0 or labels.max() >= len(class_names):
                raise ValueError(f"labels beyond the {len(class_names)} classes")
    # Damaged bytes make tarfile, zlib and the readers raise errors of many kinds.
    except Exception as error:
        raise UserError(
            f"{path}: the archive is damaged ({reason(error)}), expected what {archive.url} gives"
        ) from None
    algorithm, _, expected = archive.checksum.partition(":")
    with path.open("rb") as file:
        published = hashlib.file_digest(file, algorithm).hexdigest() == expected
    with cache.writing(directory) as temporary:
        for split, (images, labels) in zip(("train", "test"), splits, strict=True):
            with cache.NpyWriter(
                temporary / f"{split}_images.npy", (len(images), *shape), np.uint8
            ) as writer:
                for part in chunks(len(images), images[:1].nbytes):
                    writer.write(area_downscale(images[part], *shape[:2]))
            np.save(temporary / f"{split}_labels.npy", labels.astype(np.int32))
        cache.describe(temporary, class_names, source=str(path), published=published)


def _members(archive: Archive, path: Path) -> dict[str, bytes]:
    """The contents of the files that are read; nothing is written to the disk."""
    found: dict[str, bytes] = {}
    with tarfile.open(path, "r|gz") as tar:
        for member in tar:
            if member.name in archive.members and member.isfile():
                if member.size > _LARGEST:
                    raise ValueError(f"{member.name} has {member.size} bytes")
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
                if len(found) == len(archive.members):
                    break
    missing = [name for name in archive.members if name not in found]
    if missing:
        raise ValueError(f"no file {missing[0]} in it")
    return found
