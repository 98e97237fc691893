"""The error that a user's own mistake raises."""


class UserError(ValueError):
    """A mistake that the user can mend: a config key, a file, a run directory.

    The message is one line that names the key or file, its value and what was expected; the command
    line prints it without a traceback and exits with code 2.
    """
