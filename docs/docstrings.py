"""How the API pages read docstrings."""

from typing import Any

import griffe


class Sections(griffe.Extension):
    """Takes `Example:` for the section of doctests that the parser knows as `Examples:`."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring:
            lines = obj.docstring.value.split("\n")
            lines = ["Examples:" if line == "Example:" else line for line in lines]
            obj.docstring.value = "\n".join(lines)
