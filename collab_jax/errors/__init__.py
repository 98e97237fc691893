"""Errors that end a run with one line instead of a traceback."""

import contextlib
from collections.abc import Iterator, Sequence

__all__ = ["RunError", "UserError", "cut", "meant", "needs", "reason"]


class UserError(ValueError):
    """A mistake that the user can mend: a config key, a file, a run directory.

    The message is one line that names the key or file, its value and what was expected; the command
    line prints it without a traceback and exits with code 2.
    """


class RunError(RuntimeError):
    """A run cannot go on: the disk is full, the loss diverged, no checkpoint is sound.

    The message is one line that says what is kept; the command line prints it without a traceback
    and exits with code 1.
    """


def reason(error: BaseException) -> str:
    """An error's class and text in one line, for messages about what another program damaged.

    Readers of archives, arrays and JSON raise errors of a dozen kinds on damaged bytes.
    """
    text = " ".join(str(error).split())
    name = type(error).__name__
    return cut(f"{name}: {text}", 200) if text else name


def cut(text: str, length: int) -> str:
    """A text that is too long for a message, without its middle: a path's end says which file."""
    head, tail = length // 3, length - length // 3 - 3
    return text if len(text) <= length else f"{text[:head]}...{text[-tail:]}"


def meant(near: Sequence[str]) -> str:
    """`; did you mean A or B?`, the end of a message; nothing where there is none."""
    return f"; did you mean {' or '.join(near)}?" if near else ""


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Imports that an extra of the package brings.

    Raises:
        UserError: one of its packages is not installed; the message names both.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is not installed, expected the extra {extra}: "
            f"pip install '.[{extra}]'"
        ) from None
