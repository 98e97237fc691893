"""One training step: golden values, chunks, what the step counts."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ALL_TERMS, tiny_config

from collab_jax import data
from collab_jax.data import DataInfo
from collab_jax.training.batches import Feed
from collab_jax.training.build import create_experiment
from collab_jax.training.placement import Placement
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import count_wrong, train_step

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

    If that is what you mean to do, delete tests/training/golden_step.json, run this test once to
    write it anew (that run fails), and say in the CHANGELOG why results change.
    """
    parts, state = start(tiny_config(ALL_TERMS, pull_push__weight=0.64), digits)
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
        feed = Feed(digits.train, parts.settings, Placement(), batch_size=64, seed=0, chunk=chunk)
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
        feed = Feed(
            digits.train, parts.settings, Placement(), batch_size=64, seed=5, resident=resident
        )
        assert feed.resident == (resident == "always")
        seen[resident] = [inputs for _, inputs in feed.inputs(epoch=3, first_step=1)]
    assert len(seen["always"]) == len(seen["never"]) == 4
    for indices, batch in zip(seen["always"], seen["never"], strict=True):
        images, labels = digits.train.take(np.asarray(indices))
        np.testing.assert_array_equal(batch.images, images)
        np.testing.assert_array_equal(batch.labels, labels)
        np.testing.assert_array_equal(batch.indices, indices)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_one_others(digits):
    config = tiny_config("out", data__label_noise=0.3)
    parts, _ = start(config, digits)
    step = jax.jit(partial(train_step, parts.settings))
    images, labels = digits.train.take(np.arange(64))
    batch = Batch(images=images, labels=labels, indices=jnp.arange(64))

    def begun(seed):
        return create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), seed)

    def after(state):
        state, report = step(state, batch)
        return {"params": state.params, "loss": report["loss"]}

    first = after(begun(0))
    jax.tree.map(np.testing.assert_array_equal, first, after(begun(0)))
    # Also from the same parameters: augmentation, dropout and label noise are of the seed.
    for other in (begun(1), dataclasses.replace(begun(0), key=begun(1).key)):
        found = after(other)
        assert found["loss"] != first["loss"]
        kernels = [leaf for leaf in jax.tree.leaves(found["params"]) if leaf.ndim > 1]
        kernels_before = [leaf for leaf in jax.tree.leaves(first["params"]) if leaf.ndim > 1]
        for one, another in zip(kernels, kernels_before, strict=True):
            assert (one != another).any()


@pytest.mark.parametrize("kind", ["fixed", "redrawn"])
def test_fixed_noise_is_the_same_in_every_epoch_and_redrawn_noise_is_not(digits, kind):
    config = tiny_config(
        "baseline",
        model__name="resnet32",
        model__dropout=0.0,
        data__label_noise=0.5,
        data__label_noise_kind=kind,
        data__crop=False,
    )
    parts, state = start(config, digits)
    images, labels = digits.train.take(np.arange(64))
    batch = Batch(images=images, labels=labels, indices=jnp.arange(64))
    step = jax.jit(partial(train_step, parts.settings))
    losses = [
        float(step(dataclasses.replace(state, step=jnp.int32(epoch * 5)), batch)[1]["loss"])
        for epoch in (0, 1)
    ]
    assert (losses[0] == losses[1]) == (kind == "fixed")
