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


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("baseline", "model__remat"),
        ("out+mid+pull_push+kernel", "model__remat"),
        ("out+mid+pull_push+kernel", "model__remat_heads"),
    ],
)
def test_the_step_is_the_same_to_rounding(digits, method, key):
    plain, state, batch = step_and_inputs(digits, method)
    remat, *_ = step_and_inputs(digits, method, **{key: True})
    expected, report = plain(state, batch)
    found, other = remat(state, batch)
    np.testing.assert_allclose(other["loss"], report["loss"], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6),
        (found.params, found.heads, found.batch_stats),
        (expected.params, expected.heads, expected.batch_stats),
    )


@pytest.fixture(scope="module")
def counts(digits):
    """Convolutions and norms, each with its rsqrt, of a step for a GPU."""

    def of(method, **overrides):
        step, state, batch = step_and_inputs(digits, method, **overrides)
        text = step.trace(state, batch).lower(lowering_platforms=("cuda",)).as_text()
        return text.count("stablehlo.convolution"), text.count("stablehlo.rsqrt")

    with pytest.MonkeyPatch.context() as patch:
        # The convolutions of small maps of one shape are one function, called several times.
        patch.setattr("collab_jax.models.convolution._FEW_PIXELS", 0)
        yield of


def test_no_convolution_of_a_layer_is_computed_anew(counts):
    plain, remat = counts("baseline"), counts("baseline", model__remat=True)
    assert remat[0] == plain[0] and remat[1] > plain[1]


@pytest.mark.parametrize("key", ["model__remat", "model__remat_heads"])
def test_projections_are_computed_anew_with_it_alone(counts, key):
    layers, (baseline, _), (plain, _) = 13, counts("baseline"), counts("pull_push")
    assert plain <= baseline + 3 * layers + 1  # the images' gradient, which nothing needs
    assert counts("pull_push", **{key: True})[0] == plain + layers


def test_heads_alone_leave_the_norms_as_they_were(counts):
    assert counts("baseline", model__remat_heads=True) == counts("baseline")
    assert counts("pull_push", model__remat_heads=True)[1] == counts("pull_push")[1]
