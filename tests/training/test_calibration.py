"""The expected calibration error of an evaluation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax.data import DataInfo, Split
from collab_jax.training.evaluation import CONFIDENCE_BINS, Evaluator, confidence_gaps
from collab_jax.training.placement import Placement


def expected_calibration_error(probabilities, labels):
    """By its definition, in float64: bins of confidence, each weighed by its share."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    error = 0.0
    for b in range(CONFIDENCE_BINS):
        inside = (confidence > b / CONFIDENCE_BINS) & (confidence <= (b + 1) / CONFIDENCE_BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 100.0])
def test_sums_of_batches_are_the_definition(scale):
    rng = np.random.default_rng(0)
    logits = scale * rng.normal(size=(300, 10))
    labels = rng.integers(0, 10, 300)
    mask = jnp.arange(100) < 90
    batches = [slice(start, start + 100) for start in range(0, 300, 100)]
    step = jax.jit(confidence_gaps)
    total = sum(step(jnp.asarray(logits[b]), jnp.asarray(labels[b]), mask) for b in batches)
    kept = np.concatenate([np.arange(b.start, b.start + 90) for b in batches])
    exact = np.exp(logits - logits.max(1, keepdims=True))
    exact /= exact.sum(1, keepdims=True)
    wanted = expected_calibration_error(exact[kept], labels[kept])
    assert float(jnp.abs(total).sum()) / len(kept) == pytest.approx(wanted, abs=2e-6)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not():
    logits = jnp.eye(4) * 1000
    whole = jnp.ones(4, bool)
    assert jnp.abs(confidence_gaps(logits, jnp.arange(4), whole)).sum() == 0
    assert jnp.abs(confidence_gaps(logits, (jnp.arange(4) + 1) % 4, whole)).sum() == 4


def test_an_evaluation_adds_up_its_batches():
    model = nn.Sequential([lambda x, train: x.reshape(len(x), -1), nn.Dense(10)])
    info = DataInfo(10, tuple("abcdefghij"), (8, 8, 1), (0.5,), (0.2,))
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), np.uint8)
    variables = dict(model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False))
    evaluate = Evaluator(model, info, 16, Placement())
    _, logits = evaluate(variables, Split(images, np.zeros(50, int)), keep_logits=True)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(1, keepdims=True)
    # Mostly right where it doubts and wrong where it does not: the gaps of bins, and of a bin's
    # batches, have both signs.
    confidence, found = exact.max(1), exact.argmax(1)
    right = (confidence < np.median(confidence)) ^ (np.arange(50) % 3 == 0)
    labels = np.where(right, found, (found + 1) % 10)
    wanted = 100 * expected_calibration_error(exact, labels)
    mean_gap = 100 * abs(confidence.mean() - (labels == found).mean())
    assert wanted > mean_gap + 10
    evaluation, _ = evaluate(variables, Split(images, labels))
    assert evaluation.calibration_error == pytest.approx(wanted, abs=1e-4)
