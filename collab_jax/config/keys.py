"""One configuration key, and the values that it allows."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ABOVE_0", "WEIGHT", "Interval", "Key", "key"]

WEIGHT = "[0, inf)"
"""What a term's weight may be."""
ABOVE_0 = "(0, inf)"
"""What a temperature or a width may be."""


@dataclass(frozen=True)
class Interval:
    """Numbers between two bounds, written as in mathematics: `[0, 1)`."""

    text: str

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = self.text[1:-1].split(",")
        return float(low), float(high)

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float):
            return False
        low, high = self.bounds
        above = value > low if self.text[0] == "(" else value >= low
        below = value < high if self.text[-1] == ")" else value <= high
        return above and below


@dataclass(frozen=True)
class Key:
    """One configuration key; `kind` is tuple for several numbers, each of the type `item`."""

    name: str
    kind: type
    item: type | None
    default: Any
    allowed: Interval | tuple[str, ...] | None
    doc: str
    resume_free: bool

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if isinstance(self.allowed, tuple):
            return "one of " + ", ".join(self.allowed)
        among = f" in {self.allowed.text}" if self.allowed else ""
        if self.item is float:
            return (
                "parts of the run such as 0.3,0.6,0.8 or whole numbers such as 60,120,160, "
                f"each{among}"
            )
        return {
            bool: "true or false",
            int: "a whole number",
            float: "a finite float32 number",
            str: "text of printable characters",
            tuple: "whole numbers such as 60,120,160, each",
        }[self.kind] + among


def key(default: Any, allowed: str | tuple[str, ...], doc: str, resume_free: bool = False) -> Any:
    """A row of the table; `allowed` is an interval, a tuple of choices or "" for anything."""
    values = (Interval(allowed) if allowed else None) if isinstance(allowed, str) else allowed
    row = {"allowed": values, "doc": doc, "resume_free": resume_free}
    return field(default=default, metadata=row)
