"""What a run tells of its classifier, and that a run which does not learn says so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare_runs import metrics_without_timing
from tiny import tiny_config

from collab_jax import data
from collab_jax.data import DataInfo
from collab_jax.models import create_model, init_variables
from collab_jax.runs import loop
from collab_jax.training.health import Health, guessing_error, logit_scale, not_learning
from collab_jax.training.placement import Placement


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=320)


def of_digits(digits, classifier_width=16):
    """The figures' function of a tiny model, and the model's first variables."""
    model = create_model("vgg16", 10, width=0.0625, classifier_width=classifier_width)
    variables = init_variables(model, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    return Health(model, DataInfo.of(digits), digits.train, Placement()), variables


def test_dead_units_are_those_that_are_zero_on_every_image(digits):
    health, variables = of_digits(digits)
    classifier = variables["params"]["classifier"]
    classifier["fc1"]["bias"] = classifier["fc1"]["bias"].at[:4].set(-1e3)
    classifier["fc2"]["bias"] = classifier["fc2"]["bias"].at[:].set(1e3).at[5].set(-1e6)
    found = health(variables)
    assert 4 / 16 <= (found["dead_units_fc1"] or 0) < 1
    assert found["dead_units_fc2"] == 1 / 16
    assert (found["logit_scale"] or 0) > 0
    classifier["fc2"]["bias"] = classifier["fc2"]["bias"].at[:].set(-1e6)
    dead = health(variables)
    assert dead["dead_units_fc2"] == 1 and dead["logit_scale"] == pytest.approx(0, abs=1e-6)


def test_a_classifier_without_hidden_layers_has_no_dead_units(digits):
    health, variables = of_digits(digits, classifier_width=0)
    assert set(health(variables)) == {"logit_scale"}
    variables["params"]["classifier"]["fc3"]["kernel"] *= jnp.inf
    assert health(variables) == {"logit_scale": None}


def test_logit_scale_sees_what_tells_images_apart():
    alike = jnp.array([[3.0], [-1.0]]) + jnp.array([[5.0, 0.0, -5.0, 2.0]])
    assert float(logit_scale(alike)) == pytest.approx(0, abs=1e-6)
    apart = jnp.array([[1.0, 1, -1, -1], [-1, -1, 1, 1]])
    assert float(logit_scale(10 * apart + alike)) == pytest.approx(10)


def test_guessing_is_the_commonest_label():
    assert guessing_error(np.repeat(np.arange(10), 7), 10) == pytest.approx(90)
    labels = np.array([0, 0, 0, 1])
    assert guessing_error(labels, 2) == pytest.approx(25)
    assert guessing_error(labels, 2, label_noise=0.5) == pytest.approx(100 * (1 - 0.625))
    assert guessing_error(labels, 2, label_noise=1.0) == pytest.approx(50)


@pytest.mark.parametrize(
    ("epoch_start", "step", "error", "told"),
    [
        (0, 390, 89.6, True),
        (0, 390, 80.0, False),
        (0, 199, 89.6, False),  # too early
        (160, 200, 89.6, True),  # the first epoch's end that has seen 200 steps
        (200, 240, 89.6, False),  # told before
    ],
)
def test_it_is_judged_once_after_the_first_epoch_and_200_steps(epoch_start, step, error, told):
    line = {"step": step, "top1_error": error, "dead_units_fc1": 0.76, "dead_units_fc2": 0.957}
    text = not_learning(tiny_config(learning_rate=0.1), line, 90.0, epoch_start)
    if not told:
        assert text is None
    else:
        assert text == (
            f"not learning: training error {error:.2f}% after {step} steps, 90.00% by guessing; "
            "76% and 96% of the hidden units dead. Likely remedies: a lower learning_rate (now "
            "0.1) or --config.warmup_epochs=1 (now 0)"
        )


def test_a_run_that_does_not_learn_says_so_and_one_that_learns_does_not(tmp_path, capsys):
    same = {
        "batch_size": 8,
        "epochs": 5,
        "checkpoint__every_epochs": 5,
        "eval_every": 5,
        "data__label_noise": 0.0,
        "model__classifier_width": 64,
        "model__dropout": 0.0,
    }
    loop.run(tiny_config("baseline", learning_rate=1e-9, **same), tmp_path / "still")
    told = [line for line in capsys.readouterr().err.splitlines() if "not learning: " in line]
    assert len(told) == 1
    lines = metrics_without_timing(tmp_path / "still")
    of_train = [line for line in lines if line["split"] == "train"]
    assert len(of_train) == 5
    for line in of_train:
        assert line["logit_scale"] > 0
        assert 0 <= line["dead_units_fc1"] <= 1 and 0 <= line["dead_units_fc2"] <= 1
    assert "logit_scale" not in lines[-1] and lines[-1]["split"] == "test"

    loop.run(tiny_config("baseline", **same), tmp_path / "learns")
    assert "not learning" not in capsys.readouterr().err
