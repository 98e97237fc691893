"""Recipe files: where they are found, and what is wrong with a bad one."""

from pathlib import Path

import pytest
from refusals import refused

from collab_jax import cli
from collab_jax.config import find_shipped

REPOSITORY = Path(__file__).resolve().parents[2]


def write_recipe(path: Path, body: str) -> str:
    path.write_text("from collab_jax import config as config_lib\n" + body)
    return str(path)


GOOD = """
def get_config(method="baseline"):
    return config_lib.recipe(method, {"epochs": 3})
"""


def test_method_as_an_override_is_the_recipes_argument(tmp_path):
    file = write_recipe(
        tmp_path / "mine.py",
        "def get_config(method='baseline'):\n"
        "    return config_lib.recipe(method, {'epochs': 9 if method == 'mid' else 3})\n",
    )
    assert cli.parse(["--config", file]).config.epochs == 3
    command = cli.parse(["--config", file, "--config.method=mid"])
    assert (command.config.epochs, command.config.method) == (9, "mid")
    assert command.workdir == Path("runs/mine/mid/seed-0")


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_recipe(tmp_path / "mine.py", GOOD)
    command = cli.parse(["--config=~/mine.py:out", "--workdir=~/run"])
    assert command.workdir == tmp_path / "run"
    assert (command.config.name, command.config.method) == ("mine", "out")


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("x = 1\n1/0\n", ["line 3", "ZeroDivisionError: division by zero"]),
        ("def get_config(method=''):\n    return undefined\n", ["line 3", "NameError"]),
        ("def get_config(:\n", ["line 2", "syntax error"]),
        ("x = '\x00'\n", ["null bytes"]),
        ("", ["get_config", "found none"]),
        ("get_config = 3\n", ["get_config", "found none"]),
        ("def get_config(method=''):\n    return {}\n", ["returned dict", "ConfigDict"]),
        ("def get_config(method=''):\n    pass\n", ["returned NoneType"]),
        ("def get_config():\n    return config_lib.recipe()\n", ["TypeError", "argument"]),
        ("def get_config(method=''):\n    return config_lib.recipe()\n", ["returned method base"]),
        # A recipe is compiled as it stands, without this package's own __future__ imports.
        ("def get_config(method: missing = ''):\n    pass\n", ["line 2", "NameError"]),
        ("raise SystemExit(3)\n", ["line 2", "SystemExit: 3"]),
        ("raise KeyboardInterrupt\n", ["line 2", "KeyboardInterrupt"]),
        ("raise GeneratorExit\n", ["line 2", "GeneratorExit"]),
        ("raise ValueError('two\\nlines')\n", ["line 2", "ValueError: two lines"]),
        (
            "def get_config(method=''):\n    return config_lib.recipe(method, {'epcohs': 3})\n",
            ["did you mean epochs"],
        ),
        (
            "def get_config(method=''):\n"
            "    config = config_lib.recipe(method)\n"
            "    config.epochs = 'three'\n",
            ["line 4", "TypeError"],
        ),
        (
            "def get_config(method=''):\n"
            "    config = config_lib.recipe(method)\n"
            "    config.epcohs = 3\n",
            ["line 4", "epcohs"],
        ),
        (
            "def get_config(method=''):\n"
            "    config = config_lib.recipe(method)\n"
            "    config.out.temperature = 0\n"
            "    return config\n",
            ["config.out.temperature = 0"],
        ),
    ],
)
def test_recipes_at_fault_are_refused_naming_file_and_error(tmp_path, body, parts):
    file = write_recipe(tmp_path / "mine.py", body)
    message = refused("--config", f"{file}:out")
    assert message.startswith(file)
    assert all(part in message for part in parts), message


def test_a_recipe_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(bytes(range(128, 256)))
    assert refused("--config", str(path)).startswith(f"{path}")


def test_a_recipes_name_is_its_own_or_its_files(tmp_path):
    own = GOOD.replace('"epochs": 3', '"name": "mine"')
    assert cli.parse(["--config", write_recipe(tmp_path / "a.py", own)]).config.name == "mine"
    assert cli.parse(["--config", write_recipe(tmp_path / "b.py", GOOD)]).config.name == "b"
    file = write_recipe(tmp_path / f"{'c' * 120}.py", GOOD)
    assert "config.name" in refused("--config", file)


def test_shipped_recipes_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("digits_vgg16", "digits_vgg16.py", "configs/digits_vgg16.py"):
        assert find_shipped("recipe", text) == REPOSITORY / "configs" / "digits_vgg16.py"
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs" / "digits_vgg16.py"
    write_recipe(own, GOOD)
    assert cli.parse(["--config", "configs/digits_vgg16.py"]).config.epochs == 3


def test_a_file_whose_name_holds_a_colon_is_a_file(tmp_path):
    file = write_recipe(tmp_path / "a:out", GOOD)
    assert cli.parse(["--config", file]).config.method == "baseline"
    assert cli.parse(["--config", file + ":mid"]).config.method == "mid"
