"""Files from elsewhere: whether a host answers, and fetching with a known checksum."""

from __future__ import annotations

import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from collab_jax.data.progress import progress
from collab_jax.errors import UserError, needs, reason

__all__ = ["fetch", "unreachable"]

_PROBE_SECONDS = 5.0
_CHUNK = 2**18


def fetch(url: str, checksum: str, size: int, path: Path) -> None:
    """Download a file, whole and with the right checksum, or raise.

    Args:
        url: where it is.
        checksum: `sha256:...` or `md5:...`.
        size: in bytes, to show how far it is.
        path: what to write.

    Raises:
        UserError: the download fails, or other bytes come.
    """
    with needs("train"):
        import pooch

    pooch.get_logger().setLevel("WARNING")
    get: Any = pooch.HTTPDownloader
    with progress(f"downloading {url} ({size / 1e6:.0f} MB)", size, is_bytes=True) as advance:
        try:
            pooch.retrieve(
                url,
                known_hash=checksum,
                fname=path.name,
                path=path.parent,
                downloader=get(_Bar(advance), chunk_size=_CHUNK),
            )
        # The host, the disk and the checksum each have errors of their own.
        except Exception as error:
            raise UserError(f"{url}: the download failed ({reason(error)})") from None


class _Bar:
    """What pooch moves as bytes arrive."""

    def __init__(self, advance: Callable[[int], None]):
        self.total, self._advance = 0, advance

    def update(self, count: int) -> None:
        self._advance(count)

    def reset(self) -> None:
        """Before pooch counts all bytes once more."""
        self._advance = lambda count: None

    def close(self) -> None: ...


def unreachable(urls: Iterable[str], seconds: float = _PROBE_SECONDS) -> str:
    """Why files cannot be downloaded, "" where each host answers in time.

    TFDS itself takes minutes to give up without a network.

    Args:
        urls: the files' URLs; the first one of each host is tried.
        seconds: for all of them together.
    """
    by_host: dict[str, str] = {}
    for url in urls:
        by_host.setdefault(urllib.parse.urlparse(url).netloc, url)
    answers: dict[str, str] = {}
    threads = {}
    for host, url in by_host.items():
        # Daemons, because looking up a host's address cannot be given a time limit.
        threads[host] = threading.Thread(
            target=lambda host=host, url=url: answers.update({host: _answer(url, seconds)}),
            daemon=True,
        )
        threads[host].start()
    end = time.monotonic() + seconds
    for thread in threads.values():
        thread.join(max(0.0, end - time.monotonic()))
    for host in by_host:
        answer = answers.get(host, f"no answer in {seconds:g} s")
        if answer:
            return f"{host}: {answer}"
    return ""


def _answer(url: str, seconds: float) -> str:
    """What is wrong with a URL's answer, "" where it begins to send."""
    import requests

    try:
        with requests.get(url, stream=True, timeout=seconds) as response:
            return "" if response.ok else f"HTTP status {response.status_code}"
    except requests.Timeout:
        return f"no answer in {seconds:g} s"
    except requests.RequestException as error:
        return "no connection" if isinstance(error, requests.ConnectionError) else str(error)
