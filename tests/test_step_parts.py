"""The program that tells where a step's time goes."""

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


def test_rows_compare_each_part():
    shapes = step_parts.Shapes([((1, 2, 2, 1), (3, 3, 1, 5))] * 2, [], [(1, 2, 2, 5)] * 2)
    medians = {
        "ours": {step_parts.FORWARD: 0.001, step_parts.BY_INPUT: 1.0, step_parts.STEP: 0.002},
        "PyTorch": {step_parts.FORWARD: 0.004, step_parts.BY_INPUT: 1.0, step_parts.STEP: 0.002},
    }
    forward, _, step = step_parts.rows(medians, shapes)
    assert forward == "| convolutions, forward | 1.0 | 50 | 4.0 | 0.25 | 0.0 | 0.0 |"
    assert step == "| whole step | 2.0 | 100 | 2.0 | 1.00 |  |  |"


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
    with pytest.raises(SystemExit):
        step_parts.main([*arguments, "--repeats", "none"])


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
    ours, theirs = (sum(float(wide[p][place]) for p in convolutions) for place in (0, 2))
    step, torch_step = (float(wide[step_parts.STEP][place]) for place in (0, 2))
    assert f"make {100 * ours / step:.0f}% of it" in page
    saved = (step - ours + theirs) / torch_step
    assert f"it would be {saved:.2f}".replace(" 0.", " .") in page
    assert f"of 50 the step takes {narrow[step_parts.STEP][3]}".replace(" 0.", " .") in page
    slower = {part for part, ratio in ratios.items() if ratio > 1}
    assert slower == {*convolutions, step_parts.NORM, step_parts.STEP}


def table(path):
    rows = [line.strip("| ").split(" | ") for line in path.read_text().splitlines()[8:]]
    return {name: cells for name, *cells in rows}
