"""What checks annotations in tests: beartype, with PEP 484's whole numbers among the floats."""

import beartype

__all__ = ["checked"]

_checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
_REBUILT = ("TrainState.__init__",)
"""Pytrees that JAX makes anew with whatever a map gave for their leaves."""


def checked(function):
    return function if function.__qualname__ in _REBUILT else _checked(function)
