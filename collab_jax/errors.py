"""Errors that end a run with one line instead of a traceback."""

__all__ = ["RunError", "UserError", "reason"]


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
    return f"{name}: {text}"[:200] if text else name
