"""Smoothed and mixed labels in a train step, beside the loss and its gradient in float64."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import ALL_TERMS, tiny_config

from collab_jax import data
from collab_jax.data import DataInfo
from collab_jax.data.label_noise import noisy_labels
from collab_jax.objective import CrossEntropy, Objective
from collab_jax.training.build import create_experiment
from collab_jax.training.keys import key_for
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import StepSettings, train_step

CLASSES = 7


class Linear(nn.Module):
    """A network without hidden layers, so that its gradient is one line of NumPy."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(CLASSES, use_bias=False)(images.reshape(len(images), -1))


def settings_of(**changes):
    return StepSettings(
        model=Linear(),
        objective=Objective((CrossEntropy(),), options={"train": True}),
        optimizer=optax.sgd(lambda count: 1.0),
        learning_rate=lambda count: 1.0,
        mean=jnp.array([0.4]),
        std=jnp.array([0.3]),
        num_classes=CLASSES,
        steps_per_epoch=3,
        crop=False,
        flip=False,
        **changes,
    )


def batch_of(count=12):
    rng = np.random.default_rng(1)
    return Batch(
        images=jnp.asarray(rng.integers(0, 256, (count, 4, 6, 1), np.uint8)),
        labels=jnp.asarray(rng.integers(0, CLASSES, count), jnp.int32),
        indices=jnp.arange(count, dtype=jnp.int32),
    )


def stepped(settings, batch):
    state = create_train_state(
        settings.model, settings.objective, settings.optimizer, (4, 6, 1), seed=2
    )
    after, report = jax.jit(partial(train_step, settings))(state, batch)
    return state, after, report


def expected(inputs, labels, kernel):
    """Loss, gradient of the kernel, and the part whose heaviest class is not the highest logit."""
    inputs, labels, kernel = (np.asarray(x, np.float64) for x in (inputs, labels, kernel))
    flat = inputs.reshape(len(inputs), -1)
    logits = flat @ kernel
    highest = logits.max(1, keepdims=True)
    log_p = logits - highest - np.log(np.exp(logits - highest).sum(1, keepdims=True))
    gradient = flat.T @ (np.exp(log_p) * labels.sum(1, keepdims=True) - labels) / len(flat)
    wrong = (logits.argmax(1) != labels.argmax(1)).mean()
    return -(labels * log_p).sum(1).mean(), gradient, wrong


def assert_step(before, after, report, inputs, labels):
    kernel = before.params["Dense_0"]["kernel"]
    loss, gradient, wrong = expected(inputs, labels, kernel)
    np.testing.assert_allclose(report["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(report["top1_wrong"], wrong, rtol=1e-6)
    moved = np.asarray(kernel, np.float64) - after.params["Dense_0"]["kernel"]
    np.testing.assert_allclose(moved, gradient, rtol=1e-4, atol=1e-6)


def normalised(batch):
    return (np.asarray(batch.images, np.float64) / 255 - 0.4) / 0.3


def test_label_smoothing_spreads_a_part_over_all_classes():
    batch = batch_of()
    labels = 0.9 * np.eye(CLASSES)[batch.labels] + 0.1 / CLASSES
    assert_step(*stepped(settings_of(label_smoothing=0.1), batch), normalised(batch), labels)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_mixed_batch_has_the_losses_of_both_labels_by_their_share(kind, micro_batches):
    batch = batch_of()
    settings = settings_of(
        **{kind: 1.0}, label_noise=0.5, label_smoothing=0.2, micro_batches=micro_batches
    )
    before, after, report = stepped(settings, batch)
    key = jax.random.fold_in(key_for("mix", before.key), 0)
    own = np.eye(CLASSES)[np.asarray(noised(settings, before, batch))]
    inputs, only_mixed = data.mix(
        key, jnp.asarray(normalised(batch), jnp.float32), jnp.eye(12), **{kind: 1.0}
    )
    share = float(only_mixed[0, 0])
    assert 0 < share < 1
    # The noise comes first, and what it leaves is mixed and smoothed.
    labels = share * own + (1 - share) * np.roll(own, -1, axis=0)
    assert_step(before, after, report, inputs, 0.8 * labels + 0.2 / CLASSES)


def noised(settings, state, batch):
    return noisy_labels(
        batch.labels,
        batch.indices,
        0,
        key=key_for("label_noise", state.key),
        level=settings.label_noise,
        num_classes=CLASSES,
    )


def test_another_step_draws_another_share():
    settings, batch = settings_of(mixup=1.0), batch_of()
    state = create_train_state(
        settings.model, settings.objective, settings.optimizer, (4, 6, 1), seed=2
    )
    step = jax.jit(partial(train_step, settings))
    losses = {
        float(step(dataclasses.replace(state, step=jnp.int32(3 * epoch)), batch)[1]["loss"])
        for epoch in range(3)
    }
    assert len(losses) == 3


@pytest.mark.slow
def test_every_term_takes_them():
    digits = data.load("digits", train_examples=320)
    values = {}
    for mixed in (False, True):
        amounts = dict(data__mixup=0.4, data__cutmix=1.0, data__label_smoothing=0.1)
        config = tiny_config(ALL_TERMS, **amounts if mixed else {})
        parts = create_experiment(config, DataInfo.of(digits), 5)
        state = create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), seed=0)
        images, labels = digits.train.take(np.arange(64))
        batch = Batch(jnp.asarray(images), jnp.asarray(labels), jnp.arange(64, dtype=jnp.int32))
        _, values[mixed] = jax.jit(partial(train_step, parts.settings))(state, batch)
    for term in ("out", "mid", "pull_push"):
        assert np.isfinite(values[True][term]) and values[True][term] != values[False][term]
    assert values[True]["kernel"] == values[False]["kernel"]
