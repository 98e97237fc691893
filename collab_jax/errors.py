"""Errors that end a run with one line instead of a traceback."""

__all__ = ["RunError", "UserError"]


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
