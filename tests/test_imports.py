"""What each part may import from outside, what a light import loads, and the public surface."""

import ast
import importlib
import subprocess
import sys
from typing import TypeVar

import pytest
from public import PACKAGE, public_modules

# What the modules that other people's code uses may import from outside the standard library.
OUTSIDE = {
    "losses": {"jax", "jaxtyping"},
    "isolation": {"jax", "numpy"},
    "linen": {"jax", "flax"},
    "nnx": {"jax", "flax"},
    "models": {"jax", "jaxtyping", "flax", "numpy"},
}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path):
    """The module, or the package that holds it."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Every dotted name that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its direction"
            if node.module == "collab_jax":
                yield from (f"collab_jax.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def outside_sources():
    return [path for path in SOURCES if part_of(path) in OUTSIDE]


@pytest.mark.parametrize("path", outside_sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_other_people_import_needs_little(path):
    allowed = sys.stdlib_module_names | OUTSIDE[part_of(path)] | {"collab_jax"}
    assert {name.partition(".")[0] for name in imports(path)} <= allowed


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    environment = {"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return {name.split(".")[0] for name in done.stdout.split()}


HEAVY = {"flax", "optax", "orbax", "tensorflow_datasets", "tensorflow", "ml_collections", "sklearn"}


def test_losses_load_jax_alone():
    loaded = loaded_by("import collab_jax.losses, collab_jax.isolation")
    assert "jax" in loaded
    assert not loaded & HEAVY


def test_the_package_itself_is_light():
    assert not loaded_by("import collab_jax") & (HEAVY | {"jax", "numpy"})
    assert "flax" in loaded_by("from collab_jax import load")


@pytest.mark.parametrize("name", public_modules())
def test_public_names_are_listed_and_there(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    assert len(set(module.__all__)) == len(module.__all__) > 0
    for member in module.__all__:
        assert hasattr(module, member), f"{name}.__all__ lists {member}"
    defined = {
        member
        for member, value in vars(module).items()
        if not member.startswith("_")
        and getattr(value, "__module__", None) == name
        and not isinstance(value, TypeVar)
    }
    missing = defined - set(module.__all__)
    assert not missing, f"{name}.__all__ lacks {missing}; a name of its own starts with _"
