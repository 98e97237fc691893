"""Which files a TFDS builder needs, where they are, and how to get those that are not there."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from collab_jax.data.download import unreachable
from collab_jax.errors import UserError

__all__ = ["Sources", "find"]


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where a builder finds what it reads.

    Attributes:
        manual_dir: folder of files fetched by hand.
        files: the files of that folder that it reads.
        url_infos: (size, SHA-256, file name) of files in that folder, as they are, by URL, where
            TFDS registers something else.
        unverified: those of `files` whose SHA-256 is not the registered one.
    """

    manual_dir: Path
    files: tuple[Path, ...]
    url_infos: dict[str, tuple[int, str, str]]
    unverified: tuple[Path, ...]


class _Downloads:
    """Stands in for TFDS's download manager to learn what a builder asks for first."""

    def download(self, urls: Any, *_: Any, **__: Any) -> NoReturn:
        raise _Asked(tuple(_flatten(urls)))

    download_and_extract = download

    @property
    def manual_dir(self) -> NoReturn:
        raise _Asked(None)


class _Asked(Exception):
    """The URLs that a builder asks for, None where it reads `manual_dir` itself."""

    def __init__(self, urls: tuple[str, ...] | None):
        super().__init__(urls)
        self.urls = urls


def _flatten(urls: Any) -> Iterable[str]:
    if isinstance(urls, str):
        yield urls
    elif isinstance(urls, dict):
        for item in urls.values():
            yield from _flatten(item)
    elif isinstance(urls, list | tuple):
        for item in urls:
            yield from _flatten(item)
    else:
        yield urls.url  # A TFDS Resource.


def _asked(builder: Any) -> tuple[str, ...] | None:
    """The URLs that the builder asks for, none where that cannot be told, None: `manual_dir`."""
    arguments = {}
    if "pipeline" in inspect.signature(builder._split_generators).parameters:
        arguments["pipeline"] = None
    try:
        builder._split_generators(_Downloads(), **arguments)
    except _Asked as asked:
        return asked.urls
    except Exception:  # A builder may do anything with what it expects to be a real manager.
        return ()
    return ()


def find(name: str, builder: Any, downloads: Path, manual_dir: Path) -> Sources:
    """Find the files that a builder reads, without downloading any.

    A file fetched by hand is used as it is, also where it is not the registered one, as one's own
    archive in the official layout; the result names such files.

    Args:
        name: the data set's name, for messages.
        builder: its TFDS builder, not prepared.
        downloads: folder of TFDS's downloads.
        manual_dir: folder of files fetched by hand.

    Returns:
        Where the builder finds what it reads.

    Raises:
        UserError: a file is not there and cannot be downloaded, or is another data set's.
    """
    urls = _asked(builder)
    if urls is None:
        _check_manual_dir(name, builder, manual_dir)
        return Sources(manual_dir, (), {}, ())
    registered = builder.url_infos or {}
    files, missing = [], {}
    url_infos, unverified = {}, []
    for url in urls:
        info = registered.get(url)
        filename = (info and info.filename) or Path(urllib.parse.urlparse(url).path).name
        path = manual_dir / filename
        if builder.url_infos is not None and path.is_file():
            files.append(path)
            size, checksum = _size_and_checksum(path)
            if info is None or (int(info.size), info.checksum) != (size, checksum):
                _check_owner(path, checksum, url)
                unverified.append(path)
            if info is None or not info.filename or path in unverified:
                url_infos[url] = (size, checksum, filename)
        elif not _downloaded(builder, url, info, downloads):
            missing[url] = path.name
    reason = unreachable(missing)
    if reason:
        raise UserError(
            f"data set {name} is not in {downloads.parent} and cannot be downloaded ({reason}): "
            f"looked in {manual_dir} for {_listed(missing.values())}; put what "
            f"{_listed(missing)} gives there, under that name"
            + (
                ", or install Debian's package dataset-fashion-mnist"
                if builder.name == "fashion_mnist"
                else ""
            )
        )
    return Sources(manual_dir, tuple(files), url_infos, tuple(unverified))


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - 4} more" if len(items) > 4 else ""
    return ", ".join(items[:4]) + more


def _check_owner(path: Path, checksum: str, url: str) -> None:
    """Refuse another data set's file: MNIST's and Fashion-MNIST's, for one, have equal names."""
    from tensorflow_datasets.core.download import checksums

    for other, info in checksums.get_all_url_infos().items():
        if info.checksum == checksum:
            raise UserError(f"{path}: this is the file of {other}, expected that of {url}")


def _check_manual_dir(name: str, builder: Any, manual_dir: Path) -> None:
    if manual_dir.is_dir() and any(manual_dir.iterdir()):
        return
    instructions = " ".join(str(builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
    raise UserError(
        f"data set {name} has to be fetched by hand: nothing in {manual_dir}, expected "
        f"its archive there; {instructions[:400]}"
    )


def _size_and_checksum(path: Path) -> tuple[int, str]:
    try:
        with open(path, "rb") as file:
            return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _downloaded(builder: Any, url: str, info: Any, downloads: Path) -> bool:
    """Whether TFDS has downloaded the file before."""
    from tensorflow_datasets.core.download import resource

    names = [resource.get_dl_fname(url)]
    if info is not None:
        names.append(resource.get_dl_fname(url, info.checksum))
    folders = (downloads / builder.name, downloads)
    # TFDS takes a file for downloaded only with its description beside it.
    return any(
        (folder / name).exists() and (folder / f"{name}.INFO").exists()
        for folder in folders
        for name in names
    )
