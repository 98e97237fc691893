"""The documentation of the losses runs and is complete; importing them loads JAX alone."""

import doctest
import inspect
import subprocess
import sys

import pytest

from collab_jax import losses


@pytest.mark.parametrize("name", losses.__all__)
def test_examples_run(name):
    examples = doctest.DocTestFinder(recurse=False).find(getattr(losses, name), name)
    assert sum(len(example.examples) for example in examples) > 0
    runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
    for example in examples:
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", losses.__all__)
def test_docstrings_are_complete(name):
    function = getattr(losses, name)
    text = inspect.getdoc(function)
    assert text is not None
    assert text.split("\n")[1] == "", "the first line stands alone"
    for part in ("$$", "Args:", "Returns:", "Raises:", "Example:", "References:", "Eq. "):
        assert part in text, part
    for argument in inspect.signature(function).parameters:
        assert f"\n  {argument}: " in text, argument


def test_public_names_are_all_functions_of_the_package():
    functions = [name for name, value in vars(losses).items() if inspect.isfunction(value)]
    assert sorted(functions) == sorted(losses.__all__)


def test_import_loads_jax_and_jaxtyping_alone():
    program = (
        "import sys, jax, jaxtyping\n"
        "before = set(sys.modules)\n"
        "import collab_jax.losses\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names))\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", program],
        env={"JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(child.stdout.split()) <= {"collab_jax", "jax"}
    assert "collab_jax" in child.stdout
