"""Standard output and error that may end before the run does, as a closed terminal's."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from collab_jax.errors import RunError

__all__ = ["surviving_streams", "tell"]


@contextmanager
def surviving_streams() -> Iterator[None]:
    """While a run trains, what nobody reads any more, or no disk takes, is not its end.

    From the first error on, the stream leads nowhere, also afterwards.
    """
    before: tuple[Any, Any] = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        # A process started without a stream has None in its place.
        streams: Any = [_Surviving(stream or nowhere) for stream in before]
        sys.stdout, sys.stderr = streams
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


def tell(text: str) -> None:
    """Writes to standard output at once; where nobody reads it any more, that is no error.

    Raises:
      RunError: if no disk takes it.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        _lead_nowhere(sys.stdout)
    except OSError as error:
        _lead_nowhere(sys.stdout)
        raise RunError(f"standard output: could not be written ({error.strerror})") from None


def _lead_nowhere(stream: Any) -> None:
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Surviving:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            _lead_nowhere(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _lead_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
