"""What each part may import from outside, what a light import loads, and the public surface."""

import ast
import contextlib
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from typing import TypeVar

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from public import PACKAGE, public_modules

import collab_jax
from collab_jax.errors.moved import MOVED

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


CORE = ("jax", "flax", "optax", "jaxtyping", "numpy")
"""What `pip install collab-jax` brings."""


def with_their_dependencies(names):
    """The distributions that installing these brings, extras left out."""
    found, left = set(), [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name in found:
            continue
        with contextlib.suppress(metadata.PackageNotFoundError):
            requirements = [Requirement(text) for text in metadata.requires(name) or ()]
            found.add(name)
            left += [
                canonicalize_name(requirement.name)
                for requirement in requirements
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            ]
    return found


ALONE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def in_the_core_alone(code):
    """A program's end where nothing but the core is installed."""
    there = with_their_dependencies(CORE)
    missing = {
        module
        for module, owners in metadata.packages_distributions().items()
        if not there & {canonicalize_name(owner) for owner in owners} and module != "collab_jax"
    }
    assert {"ml_collections", "tensorflow", "sklearn", "PIL", "tensorboardX"} <= missing
    return subprocess.run(
        [sys.executable, "-c", ALONE.replace("MISSING", repr(missing)) + code],
        capture_output=True,
        text=True,
        env={"PATH": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(PACKAGE.parent)},
    )


@pytest.mark.smoke
def test_the_core_is_what_the_package_depends_on():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert {Requirement(text).name for text in project["dependencies"]} == set(CORE)


@pytest.mark.smoke
def test_the_core_alone_serves_other_peoples_code():
    done = in_the_core_alone(
        "from collab_jax import isolation, linen, losses, models, nnx, objective\n"
        "import jax\n"
        "model = models.create_model('vgg16', 10, width=0.0625, classifier_width=16)\n"
        "images = jax.ShapeDtypeStruct((2, 32, 32, 3), 'float32')\n"
        "print(jax.eval_shape(model.init, jax.random.key(0), images) is not None)\n"
    )
    assert done.stdout == "True\n", done.stderr


def test_what_training_needs_is_named_with_its_extra():
    done = in_the_core_alone("from collab_jax.__main__ import main; sys.exit(main())")
    assert done.returncode
    line = "error: the package [a-z_A-Z.]+ is not installed, expected the extra train: .*train.*\n"
    assert re.fullmatch(line, done.stderr), done.stderr


def test_the_core_alone_predicts():
    done = in_the_core_alone("import collab_jax; print(collab_jax.load.__name__)")
    assert done.stdout == "load\n", done.stderr


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


def test_events_are_written_without_pytorch(tmp_path):
    """tensorboardX imports it where it is installed, which takes seconds."""
    (tmp_path / "torch.py").write_text("raise RuntimeError('imported')")
    code = f"sys.path.insert(0, {str(tmp_path)!r}); import collab_jax.runs.tensorboard"
    assert "torch" not in loaded_by(code)


def test_a_gpu_is_measured_with_the_core_alone():
    done = in_the_core_alone(
        "from collab_jax.benchmark.gpu import command, measure, parity, worker\n"
        "from collab_jax.benchmark.workload import Case\n"
        "print(Case(overrides={'model.width': 0.1}).experiment().objective.terms[0].name)\n"
        "print(sorted(worker.machine()))\n"
    )
    assert done.stdout.startswith("cross_entropy\n['device', 'git_revision'"), done.stderr


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


@pytest.mark.parametrize("old", sorted(MOVED))
def test_a_module_that_moved_is_told_where_it_is(old):
    expected = rf"collab_jax\.{old} is collab_jax\.{MOVED[old]} since version 0\.2\.0"
    with pytest.raises(ImportError, match=expected):
        importlib.import_module(f"collab_jax.{old}")
    for new in MOVED[old].split(" and "):
        importlib.import_module(f"collab_jax.{new}")


def test_a_module_that_moved_is_told_as_an_attribute_too():
    with pytest.raises(AttributeError, match=r"is collab_jax\.runs\.loop since"):
        collab_jax.train  # noqa: B018
    with pytest.raises(ImportError, match=r"is collab_jax\.runs\.load since"):
        from collab_jax import restore  # noqa: F401
    assert not hasattr(collab_jax, "xyzzy")
