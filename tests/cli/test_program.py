"""The program: what it prints, its exits and its start."""

import os
import shutil
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from collab_jax import cli
from collab_jax import config as config_lib
from collab_jax._version import __version__
from collab_jax.errors import RunError, UserError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.smoke
def test_help_lists_every_recipe_with_its_header(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    files = sorted((REPOSITORY / "configs").glob("*.py"))
    assert len(files) >= 14
    for path in files:
        header = path.read_text().split('"""')[1].splitlines()[0]
        assert any(path.stem in line and header in line for line in text.splitlines())
    assert all(len(line) <= 80 for line in cli.usage().partition("recipes:")[0].splitlines())
    flags = "config workdir mode checkpoint coordinator num_processes process_id profile resume"
    for flag in (*flags.split(), "no-resume", "keys", "version", "help"):
        assert f" --{flag} " in text


def test_usage_without_arguments_or_config_exits_with_2(capsys):
    for arguments in ([], ["--workdir", "x"]):
        assert cli.main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("usage: ") and "digits_vgg16" in captured.err
    assert captured.err.splitlines()[-1] == "error: --config FILE[:METHOD] is missing"


@pytest.mark.smoke
def test_keys_are_listed_in_80_columns(capsys):
    assert cli.main(["--keys"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    found = [line.partition("=")[0] for line in lines if not line.startswith(" ")]
    assert found == list(config_lib.SCHEMA)


def test_keys_are_found_by_a_word(capsys):
    assert cli.main(["--keys", "Noise"]) == 0
    assert capsys.readouterr().out.startswith("data.label_noise=0\n    probability that")
    assert cli.main(["--keys", "lr"]) == 0
    assert capsys.readouterr().out.startswith("learning_rate=0.1\n")
    assert cli.main(["--keys", "epcohs"]) == 2
    assert capsys.readouterr().err == (
        "error: --keys 'epcohs': no key holds it; did you mean epochs?\n"
    )


def test_the_version_is_told(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"collab_jax {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("two\nlines"), 2), (RunError("two\nlines"), 1)]
)
def test_errors_of_a_run_are_one_line_and_an_exit_code(calls, monkeypatch, capsys, error, code):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("collab_jax.runs.loop.run", fail)
    assert cli.main(["--config", "digits_vgg16"]) == code
    assert capsys.readouterr().err == "error: two lines\n"


def test_other_errors_are_not_hidden(calls, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("collab_jax.runs.loop.run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["--config", "digits_vgg16"])


def run_program(*arguments: str, cwd: Path = REPOSITORY, **environment: str):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, time.monotonic() - started


def test_a_wrong_key_is_told_at_once():
    done, seconds = run_program(
        "launch.py", "--config", "configs/cifar10_vgg16.py", "--config.epcohs=3"
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: config.epcohs: no such key; did you mean epochs?\n"
    assert seconds < 3


def test_parsing_imports_no_jax():
    code = (
        "import sys; from collab_jax import cli; cli.parse(['--config', 'digits_vgg16:out']);"
        "heavy = {'jax', 'flax', 'numpy', 'tensorflow'} & set(sys.modules); assert not heavy, heavy"
    )
    done, _ = run_program("-c", code)
    assert done.returncode == 0, done.stderr


def test_an_installed_package_carries_the_recipes(tmp_path):
    # The layout of the wheel, which force-includes configs as collab_jax/configs.
    site = tmp_path / "site"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "collab_jax", site / "collab_jax", ignore=ignore)
    shutil.copytree(REPOSITORY / "configs", site / "collab_jax" / "configs", ignore=ignore)
    done, _ = run_program("-m", "collab_jax", "--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert "usage: python -m collab_jax" in done.stdout and "cifar10_vgg16" in done.stdout
    arguments = ["--config", "configs/cifar10_vgg16.py:out", "--config.model.dropout=0"]
    done, _ = run_program("-m", "collab_jax", *arguments, cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 2
    assert done.stderr.startswith("error: config.model.dropout = 0")


@pytest.mark.parametrize("error", [None, RunError("the disk is full"), ZeroDivisionError()])
def test_the_hooks_of_the_interpreter_are_as_they_were(calls, monkeypatch, error):
    def execute(command):
        if error is not None:
            raise error

    monkeypatch.setattr(cli, "execute", execute)
    monkeypatch.setattr(cli.atexit, "register", lambda function: None)
    before = sys.excepthook, sys.unraisablehook, warnings.showwarning, warnings.formatwarning
    with suppress(ZeroDivisionError):
        cli.main(["--config=digits_vgg16"])
    after = sys.excepthook, sys.unraisablehook, warnings.showwarning, warnings.formatwarning
    assert after == before


LATE = """
import atexit, sys
from collab_jax import cli
from collab_jax.errors import RunError

class Late:
    def __init__(self, text): self.text = text
    def __del__(self): raise RuntimeError(self.text)

def fail(command):
    Late("Event loop is closed")
    Late("another, at once")
    raise RunError("the disk is full")

cli.execute = fail
for text in ("Event loop is closed", "another, at the end"):
    atexit.register(Late, text)
sys.exit(cli.main(["--config=digits_vgg16"]))
"""


def test_what_threads_print_after_a_write_that_failed_is_left_out():
    done, _ = run_program("-c", LATE)
    assert done.returncode == 1
    assert "error: the disk is full" in done.stderr and "Event loop" not in done.stderr
    assert "another, at once" in done.stderr and "another, at the end" in done.stderr
