"""The search: each trial once, chosen by validation alone, gone on with after a stop."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collab_jax import cli
from collab_jax.errors import UserError
from collab_jax.study.search import __main__ as program
from collab_jax.study.search.spec import Range, Search, grid_points, load_search
from collab_jax.study.search.storage import SearchStorage

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SEARCH = """
from collab_jax.study.search.spec import Range, Search
def get_search(method="baseline"):
    return Search(
        "digits_vgg16", method, grid={grid}, space={space}, trials={trials}, prune={prune},
        overrides={{"epochs": 4, "decay_epochs": (1,), "data.validation": {validation}}},
    )
"""
DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from collab_jax.study.search import __main__ as search
search.interpreter_command = lambda run: [sys.executable, {stub!r}, *run.arguments]
sys.exit(search.main())
"""
# The stub's validation error is lowest at mid.weight 1, its test error at the highest weight.
# It reads mid.weight whatever the method; `baseline` never waits.


@pytest.fixture
def write(tmp_path):
    def make(
        grid={"mid.weight": (0.25, 1.0, 3.0, 4.0)},  # noqa: B006
        space="{'mid.weight': Range(0.1, 5.0)}",
        trials=12,
        validation=100,
        prune=False,
    ):
        file = tmp_path / "tiny.py"
        text = SEARCH.format(
            grid=grid, space=space, trials=trials, validation=validation, prune=prune
        )
        file.write_text(text)
        return file

    return make


def start(file, out, folder):
    """A process of the search with runs that train nothing."""
    driver = folder / "driver.py"
    driver.write_text(DRIVER.format(tests=str(HERE), stub=str(HERE / "stub_launch.py")))
    return subprocess.Popen(
        [sys.executable, str(driver), "--search", str(file), "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done_in(output):
    return [int(number) for number in re.findall(r"^trial (\d+) \(", output, re.MULTILINE)]


def test_two_processes_do_each_of_twelve_trials_once(write, tmp_path):
    file, out = write(), tmp_path / "out"
    processes = [start(file, out, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    shares = [done_in(stdout.partition("trials, best first")[0]) for stdout, _ in outputs]
    assert sorted(shares[0] + shares[1]) == list(range(12))
    assert all(shares), "one process did nothing"
    trials = json.loads((out / "search.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 12
    weights = [trial["parameters"]["mid.weight"] for trial in trials]
    assert weights[:4] == [0.25, 1.0, 3.0, 4.0], "the grid comes first"
    assert len(set(weights)) == 12 and all(0.1 <= weight <= 5 for weight in weights)
    for trial, weight in zip(trials, weights, strict=True):
        assert trial["validation_error"] == pytest.approx(20 + abs(weight - 1), abs=1e-4)
    assert sum(1 for _ in out.glob("trials/*/*/*/*.starts")) == 12
    # The best is the best on validation, and its file is a recipe.
    command = cli.parse(["--config", f"{out / 'best.py'}:baseline"])
    assert command.config.mid.weight == min(weights, key=lambda weight: abs(weight - 1))
    assert (command.config.data.validation, command.config.epochs) == (0, 30)
    assert command.config.name == "tiny_baseline"


def test_a_killed_process_leaves_its_trial_to_the_next(write, tmp_path):
    file, out = (
        write(grid={"mid.weight": (9.0, 1.0)}, space="{'mid.weight': Range(0.1, 9.5)}", trials=2),
        tmp_path / "out",
    )
    process = start(file, out, tmp_path)
    end = time.monotonic() + 60
    while not list(out.glob("trials/0000/*/*/*/metrics.jsonl")):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.communicate()
    process = start(file, out, tmp_path)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert done_in(stdout.partition("trials, best first")[0]) == [0, 1]
    trials = json.loads((out / "search.json").read_text())["trials"]
    assert [trial["parameters"]["mid.weight"] for trial in trials] == [9.0, 1.0]


def test_a_trial_worse_than_the_others_is_ended(write, tmp_path):
    weights = (1.0, 1.1, 1.2, 1.3, 9.0)
    file = write(
        grid={"mid.weight": weights}, space="{'mid.weight': Range(0.1, 9.5)}", trials=5, prune=True
    )
    process = start(file, tmp_path / "out", tmp_path)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    trials = json.loads((tmp_path / "out" / "search.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 4 + ["pruned"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validation": 0}, "never by the test split"),
        ({"trials": 3}, "trials = 3: expected the grid's 4 or more"),
        ({"space": "{'mid.alpha': Range(0.1, 5.0)}"}, "expected the same, at least one"),
        ({"space": "{'mid.weight': Range(0.5, 5.0)}"}, "expected values from 0.5 to 5"),
        ({"space": "{'mid.weight': Range(0.0, 5.0)}"}, "expected above 0 with log"),
        ({"grid": {"mid.wight": (1.0,)}, "space": "{'mid.wight': Range(1, 2)}"}, "mid.weight"),
    ],
)
def test_a_search_that_cannot_be_done_is_refused(change, message, write, tmp_path, capsys):
    arguments = ["--search", str(write(**change)), "--out", str(tmp_path / "out")]
    assert program.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "out").exists()


def test_another_search_in_the_folder_is_refused(tmp_path):
    search = Search("digits_vgg16", "mid", {"mid.weight": (1.0,)}, {"mid.weight": Range(0.1, 2)}, 1)
    SearchStorage(tmp_path / "out", "first", search)
    with pytest.raises(UserError, match="holds the search first, not second"):
        SearchStorage(tmp_path / "out", "second", search)
    wider = Search("digits_vgg16", "mid", {"mid.weight": (1.0,)}, {"mid.weight": Range(0.1, 3)}, 1)
    with pytest.raises(UserError, match="has another recipe, grid, space"):
        SearchStorage(tmp_path / "out", "first", wider)


@pytest.mark.parametrize("method", ["baseline", "out", "mid", "kernel", "out+mid+pull_push"])
def test_the_shipped_search_covers_each_method(method):
    name, search = load_search(f"small_fashion_mnist:{method}")
    assert name == f"small_fashion_mnist_{method}"
    terms = method.split("+")
    assert len(search.grid) == len(terms)
    assert len(grid_points(search)) == (4 if len(terms) == 1 else 2 ** len(terms))
    study_seeds = range(5)
    assert not set(search.seeds) & set(study_seeds), "weights are chosen on other images"
