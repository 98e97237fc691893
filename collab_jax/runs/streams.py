"""Standard output and error that may end before the run does, as a closed terminal's."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["surviving_streams"]


@contextmanager
def surviving_streams() -> Iterator[None]:
    """While a run trains, what nobody reads any more, or no disk takes, is not its end.

    From the first error on, the stream leads nowhere, also afterwards.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Surviving(stream) for stream in before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Surviving:
    def __init__(self, stream: Any) -> None:
        # A process started without the stream has None in its place.
        self._stream = stream or open(os.devnull, "w")

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._lead_nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lead_nowhere()

    def _lead_nowhere(self) -> None:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
