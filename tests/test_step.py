"""One training step: golden values, chunks, what the step counts."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import ALL_TERMS, tiny_config

from collab_jax import data
from collab_jax.experiment import DataInfo, create_experiment
from collab_jax.feed import Feed
from collab_jax.step import count_wrong, train_step
from collab_jax.train_state import Batch, create_train_state

GOLDEN = Path(__file__).with_name("golden_step.json")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=320)


def start(config, dataset):
    parts = create_experiment(config, DataInfo.of(dataset), len(dataset.train) // config.batch_size)
    state = create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), seed=0)
    return parts, state


@pytest.mark.slow
def test_golden_step(digits):
    """A change of these numbers is a change of everybody's results.

    If that is what you mean to do, delete tests/golden_step.json, run this test once to write it
    anew (that run fails), and say in the CHANGELOG why results change.
    """
    parts, state = start(tiny_config(ALL_TERMS), digits)
    images, labels = digits.train.take(np.arange(64))
    batch = Batch(images=images, labels=labels, indices=jnp.arange(64))
    state, report = jax.jit(partial(train_step, parts.settings))(state, batch)
    found = {name: float(value) for name, value in report.items()}
    found["params_norm"] = float(
        jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(state.params)))
    )
    found["heads_norm"] = float(
        jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(state.heads)))
    )
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"{GOLDEN} was missing and has been written")
    assert found == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4, abs=1e-5)


def test_wrong_at_top_n():
    logits = jnp.array([[3.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [jnp.nan, 1.0, 2.0, 3.0]])
    labels = jnp.array([1, 2, 0])
    np.testing.assert_array_equal(count_wrong(logits, labels, 1), [1, 1, 1])
    np.testing.assert_array_equal(count_wrong(logits, labels, 2), [0, 1, 1])


def test_a_chunk_computes_what_its_steps_compute(digits):
    config = tiny_config("baseline", model__name="resnet32")
    states = {}
    for chunk in (1, 2):
        parts, state = start(config, digits)
        feed = Feed(digits.train, parts.settings, batch_size=64, seed=0, chunk=chunk)
        counts = []
        for count, inputs in feed.inputs(epoch=0, first_step=0):
            state, report = feed.run(state, inputs)
            counts.append(count)
        assert counts == {1: [1] * 5, 2: [2, 2, 1]}[chunk]
        assert int(report["steps"]) == 5
        states[chunk] = state
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3),
        states[1].params,
        states[2].params,
    )


def test_batches_from_the_host_are_those_gathered_on_the_device(digits):
    parts, _ = start(tiny_config("baseline"), digits)
    seen = {}
    for resident in ("always", "never"):
        feed = Feed(digits.train, parts.settings, batch_size=64, seed=5, resident=resident)
        assert feed.resident == (resident == "always")
        seen[resident] = [inputs for _, inputs in feed.inputs(epoch=3, first_step=1)]
    assert len(seen["always"]) == len(seen["never"]) == 4
    for indices, batch in zip(seen["always"], seen["never"], strict=True):
        images, labels = digits.train.take(indices)
        np.testing.assert_array_equal(batch.images, images)
        np.testing.assert_array_equal(batch.labels, labels)
        np.testing.assert_array_equal(batch.indices, indices)
