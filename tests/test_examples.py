"""The examples run, and what they print says that they learn."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr()


def numbers(pattern, text):
    return [float(number) for number in re.findall(pattern + r" (-?\d+\.\d+)", text)]


def test_every_example_is_tested_and_short():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {*LOSSES, "restore_and_predict.py"}
    for name in names:
        assert len((EXAMPLES / name).read_text().splitlines()) < 80, name


LOSSES = {
    "own_linen_cnn.py": "loss",
    "own_nnx_model.py": "loss",
    "losses_in_optax_loop.py": "L_out",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_loss_falls_and_the_model_predicts(name, capsys, monkeypatch):
    out = run(name, capsys, monkeypatch).out
    losses = numbers(LOSSES[name], out)
    assert len(losses) > 4 and losses[-1] < 0.6 * losses[0]
    (error,) = numbers("test error", out)
    assert error < 25.0
    if name == "losses_in_optax_loop.py":
        kernel = numbers("L_kernel", out)
        assert kernel[-1] < kernel[0]


@pytest.mark.slow
def test_a_restored_network_predicts_without_training_parts(capsys, monkeypatch):
    out, display = run("restore_and_predict.py", capsys, monkeypatch)
    assert "collections: batch_stats, params" in out
    assert len(re.findall(r"image \d: \d, predicted \d", out)) == 5
    (error,) = numbers("test error", out)
    # What the run itself found for the checkpoint that it calls its best.
    assert numbers("best test error", " ".join(display.split())) == [pytest.approx(error, abs=0.06)]
    assert error < 50.0
