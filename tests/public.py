"""The modules whose names are public: the rooms of the package, or the modules of faceless ones."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "collab_jax"
FACELESS = {"files", "runs", "training"}
"""Packages that export nothing themselves."""


def public_modules():
    files = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    rooms = {file.parts[0] for file in files if not file.parts[0].startswith("_")}
    inside = {
        ".".join(file.parts)
        for file in files
        if file.parts[0] in ("config", *FACELESS) and file.name != "__init__"
    }
    return ["collab_jax", *sorted(f"collab_jax.{name}" for name in (rooms | inside) - FACELESS)]
