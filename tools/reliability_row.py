"""A line of the table that `reliability.py` prints."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was done, how often, what came of it, and whether that is as it should be."""

    what: str
    trials: int
    outcome: str
    good: bool
