"""Command lines that are refused."""

import pytest

from collab_jax import cli
from collab_jax.errors import UserError

__all__ = ["refused"]


def refused(*arguments: str) -> str:
    """The message of a refused command line, checked to be one readable line."""
    with pytest.raises(UserError) as caught:
        cli.parse(arguments)
    message = str(caught.value)
    assert message.isprintable()
    return message
