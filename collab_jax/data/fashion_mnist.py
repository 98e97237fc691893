"""Fashion-MNIST without a network, from Debian's package dataset-fashion-mnist.

    python -m collab_jax.data.fashion_mnist [SOURCE_DIR [MANUAL_DIR]]

writes the four files to MANUAL_DIR (~/.cache/collab_jax/downloads/manual), as they were published
and under the names that TFDS looks for. Debian removes the time and name from their gzip headers;
they are put back, after which each file has the SHA-256 that TFDS has registered. Loading
`fashion_mnist` does the same by itself where it finds Debian's files and no others.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collab_jax.errors import UserError
from collab_jax.files import atomic

__all__ = ["DEBIAN_DIR", "from_debian", "main", "published", "restore"]

DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")

# Modification time that the published file's gzip header holds.
_TIMES = {
    "train-images-idx3-ubyte.gz": 0x59A7E9DE,
    "train-labels-idx1-ubyte.gz": 0x59A7E9DE,
    "t10k-images-idx3-ubyte.gz": 0x59A7E9F3,
    "t10k-labels-idx1-ubyte.gz": 0x59A7E9F3,
}
_GZIP_MAGIC, _HAS_NAME = b"\x1f\x8b\x08", 8

_log = logging.getLogger(__name__)


def published(name: str, data: bytes) -> bytes:
    """The published file's bytes, from those of a gzip file without name and time (RFC 1952).

    Args:
        name: such as `train-images-idx3-ubyte.gz`.
        data: the file's bytes; returned as they are where the header has a name already.

    Raises:
        UserError: not a gzip file.
    """
    if data[:3] != _GZIP_MAGIC or len(data) < 18:
        raise UserError(f"{name}: not a gzip file, expected one of Fashion-MNIST's")
    if data[3] & _HAS_NAME:
        return data
    time = struct.pack("<I", _TIMES[name])
    inner = name.removesuffix(".gz").encode() + b"\0"
    return data[:3] + bytes([_HAS_NAME]) + time + data[8:10] + inner + data[10:]


def restore(source: Path, destination: Path, url_infos: Mapping[str, Any]) -> None:
    """Write the four published files.

    Args:
        source: folder of Debian's files.
        destination: where to write them.
        url_infos: TFDS's registered files by URL, each with `filename` and `checksum`.

    Raises:
        UserError: a file is missing or is not the published one after the header's repair.
    """
    checksums = {info.filename: info.checksum for info in url_infos.values()}
    files = {}
    for name in _TIMES:
        try:
            files[name] = published(name, (source / name).read_bytes())
        except OSError as error:
            raise UserError(
                f"{source / name}: cannot be read ({error.strerror}), expected the files of "
                "Debian's package dataset-fashion-mnist"
            ) from None
        if hashlib.sha256(files[name]).hexdigest() != checksums[name]:
            raise UserError(f"{source / name}: not the published file, expected its contents")
    try:
        destination.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            atomic.write_bytes(destination / name, data)
    except OSError as error:
        raise UserError(f"{destination}: cannot be written ({error.strerror})") from None


def from_debian(downloads: Path, manual_dir: Path, url_infos: Mapping[str, Any]) -> Path:
    """The folder to read Fashion-MNIST's files from.

    Returns:
        `manual_dir`, or where it has none of the files, or is Debian's folder, and Debian's are
        installed: a folder in `downloads` with those as they were published.
    """
    own = manual_dir != DEBIAN_DIR and any((manual_dir / name).exists() for name in _TIMES)
    if own or not DEBIAN_DIR.is_dir():
        return manual_dir
    _log.info("fashion_mnist is read from %s", DEBIAN_DIR)
    restored = downloads / "fashion_mnist_debian"
    restore(DEBIAN_DIR, restored, url_infos)
    return restored


def main(arguments: list[str]) -> int:
    """The command; 0, or 2 after an error."""
    import tensorflow_datasets as tfds

    if len(arguments) > 2 or any(argument.startswith("-") for argument in arguments):
        print(__doc__, file=sys.stderr)
        return 2
    source = Path(arguments[0]) if arguments else DEBIAN_DIR
    default = "~/.cache/collab_jax/downloads/manual"
    destination = Path(arguments[1] if len(arguments) == 2 else default).expanduser()
    try:
        restore(source, destination, tfds.builder_cls("fashion_mnist").url_infos or {})
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {', '.join(_TIMES)} to {destination}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
