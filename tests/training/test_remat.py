"""Rematerialisation: less memory, the same step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from collab_jax import data
from collab_jax.data import DataInfo
from collab_jax.training.build import create_experiment
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import train_step


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=64)


def step_and_inputs(digits, method, **overrides):
    parts = create_experiment(tiny_config(method, **overrides), DataInfo.of(digits), 1)
    state = create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), seed=0)
    images, labels = digits.train.take(np.arange(64))
    batch = Batch(images=images, labels=labels, indices=jnp.arange(64))
    return jax.jit(partial(train_step, parts.settings)), state, batch


@pytest.mark.parametrize("method", ["baseline", "out+mid+pull_push+kernel"])
def test_the_step_is_the_same_to_rounding(digits, method):
    plain, state, batch = step_and_inputs(digits, method)
    remat, *_ = step_and_inputs(digits, method, model__remat=True)
    expected, report = plain(state, batch)
    found, other = remat(state, batch)
    np.testing.assert_allclose(other["loss"], report["loss"], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6),
        (found.params, found.heads, found.batch_stats),
        (expected.params, expected.heads, expected.batch_stats),
    )


def test_no_convolution_of_a_layer_is_computed_anew(digits):
    def convolutions_and_norms(**overrides):
        step, state, batch = step_and_inputs(digits, "baseline", **overrides)
        text = step.trace(state, batch).lower(lowering_platforms=("cuda",)).as_text()
        return text.count("stablehlo.convolution"), text.count("stablehlo.rsqrt")

    plain, remat = convolutions_and_norms(), convolutions_and_norms(model__remat=True)
    assert remat[0] == plain[0] and remat[1] > plain[1]


def test_projections_are_computed_anew_with_it_alone(digits):
    def convolutions(method, **overrides):
        step, state, batch = step_and_inputs(digits, method, **overrides)
        text = step.trace(state, batch).lower(lowering_platforms=("cuda",)).as_text()
        return text.count("stablehlo.convolution")

    layers, baseline = 13, convolutions("baseline")
    assert convolutions("pull_push") == baseline + 3 * layers
    assert convolutions("pull_push", model__remat=True) == baseline + 4 * layers
