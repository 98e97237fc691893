"""The program that tells where a step's time goes."""

import jax.numpy as jnp
import numpy as np
import pytest
import step_parts
from numpy.testing import assert_allclose

from collab_jax.benchmark.workload import Case

TINY = {"model.width": 0.0625, "model.classifier_width": 8}


@pytest.fixture(scope="module")
def case():
    return Case(image_size=16, batch_size=2, overrides=TINY)


@pytest.fixture(scope="module")
def shapes(case):
    return step_parts.shapes_of(case)


def test_the_shapes_are_those_of_the_network(shapes):
    assert len(shapes.convolutions) == len(shapes.outputs) == 13
    assert shapes.convolutions[0] == ((2, 16, 16, 3), (3, 3, 3, 4))
    assert shapes.convolutions[2] == ((2, 8, 8, 4), (3, 3, 4, 8))
    assert shapes.outputs[-1] == (2, 2, 2, 32)
    assert shapes.pooled[0] == (2, 16, 16, 4)
    first = 2 * (2 * 16 * 16 * 4) * (3 * 3 * 3)
    assert shapes.flops() - shapes.flops(first=1) == first


def test_the_gradients_are_those_of_the_convolution(shapes):
    """The forward convolution is linear: <y, conv(x, k)> is <x, by input> and <k, by weight>."""
    (x,), (kernel,) = ([of] for of in shapes.convolutions[3])
    x, kernel, cotangent = step_parts._random([x, kernel, shapes.outputs[3]])
    product = np.vdot(cotangent, step_parts._convolve(x, kernel))
    for argument, value in enumerate((x, kernel)):
        gradient = step_parts._gradient(argument)(x, kernel, cotangent)
        assert_allclose(np.vdot(value, gradient), product, rtol=1e-4)


def test_norm_and_pooling_compute_all_that_a_step_does():
    rng = np.random.default_rng(1)
    x, cotangent = (jnp.asarray(rng.standard_normal((4, 2, 2, 3), np.float32)) for _ in range(2))
    scale = jnp.asarray([1.0, 2.0, 0.5])
    zeros = jnp.zeros(3)
    variables = {
        "params": {"scale": scale, "bias": zeros},
        "batch_stats": {"mean": zeros, "var": zeros + 1},
    }
    y, updated, (of_variables, of_x) = step_parts._both(step_parts._normed)(
        (variables, x), cotangent
    )
    assert_allclose(updated["batch_stats"]["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    y, passed = np.asarray(y), np.where(y > 0, cotangent, 0)
    assert_allclose(of_variables["params"]["bias"], passed.sum((0, 1, 2)), rtol=1e-5)
    assert_allclose(
        of_variables["params"]["scale"],
        (passed * y / np.asarray(scale)).sum((0, 1, 2)),
        rtol=1e-4,
        atol=1e-5,
    )
    assert of_x.shape == x.shape
    y, _, (of_x,) = step_parts._both(step_parts._pool)((x,), cotangent[:, :1, :1])
    assert_allclose(y, x.max((1, 2), keepdims=True))
    assert_allclose(of_x.sum((1, 2)), cotangent[:, 0, 0])


def test_rows_compare_each_part():
    shapes = step_parts.Shapes([((1, 2, 2, 1), (3, 3, 1, 5))] * 2, [], [(1, 2, 2, 5)] * 2)
    medians = {
        "ours": {step_parts.FORWARD: 0.001, step_parts.BY_INPUT: 1.0, step_parts.STEP: 0.002},
        "PyTorch": {step_parts.FORWARD: 0.004, step_parts.BY_INPUT: 1.0, step_parts.STEP: 0.002},
    }
    forward, _, step = step_parts.rows(medians, shapes)
    assert forward == "| convolutions, forward | 1.0 | 50 | 4.0 | 0.25 | 0.0 | 0.0 |"
    assert step == "| whole step | 2.0 | 100 | 2.0 | 1.00 |  |  |"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--repeats", "0", "--no-torch"], "--repeats 0: expected at least 1"),
        ([], "PyTorch is missing; expected the extra `bench`, or --no-torch"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_runs(
    tmp_path, capsys, monkeypatch, arguments, told
):
    monkeypatch.setattr(step_parts, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        step_parts.main([*arguments, "--output", str(tmp_path / "a.md")])
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_each_part_runs(tmp_path, monkeypatch):
    output = tmp_path / "parts.md"
    arguments = ["--width", "0.0625", "--classifier-width", "8", "--image-size", "16"]
    arguments += ["--batch-size", "2", "--repeats", "1", "--no-torch", "--output", str(output)]
    step_parts.main(arguments)
    lines = output.read_text().splitlines()
    parts = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert parts == [
        "part",
        step_parts.FORWARD,
        step_parts.BY_INPUT,
        step_parts.BY_WEIGHT,
        step_parts.NORM,
        step_parts.POOLING,
        step_parts.CLASSIFIER,
        step_parts.OPTIMIZER,
        step_parts.STEP,
    ]


def test_the_page_tells_what_was_measured():
    root = step_parts.ROOT
    page = " ".join((root / "results" / "README.md").read_text().split())
    wide, narrow = (
        table(root / "results" / f"{x}.md") for x in ("step_parts", "step_parts_narrow")
    )
    ratios = {part: float(cells[3]) for part, cells in wide.items()}
    convolutions = (step_parts.FORWARD, step_parts.BY_INPUT, step_parts.BY_WEIGHT)
    assert f"step takes {ratios[step_parts.STEP]} of PyTorch" in page
    told = "take {}, {} and {} of PyTorch's".format(*(wide[part][3] for part in convolutions))
    assert told in page
    share = sum(float(wide[part][0]) for part in convolutions) / float(wide[step_parts.STEP][0])
    assert f"make {100 * share:.0f}% of it" in page
    assert (
        "at {:.0f}, {:.0f} and {:.0f} GFLOP/s".format(*(float(wide[p][4]) for p in convolutions))
        in page
    )
    assert f"of 50 the step takes {narrow[step_parts.STEP][3]}" in page
    others = {step_parts.POOLING, step_parts.CLASSIFIER, step_parts.OPTIMIZER}
    assert all(0.3 < ratios[part] <= 0.8 for part in others)
    assert round(ratios[step_parts.NORM], 1) == 1.0


def table(path):
    rows = [line.strip("| ").split(" | ") for line in path.read_text().splitlines()[8:]]
    return {name: cells for name, *cells in rows}
