"""Batch norm over parts of a batch, and micro-batches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny import tiny_config

from collab_jax import data
from collab_jax.data import DataInfo
from collab_jax.errors import UserError
from collab_jax.models.normalization import GroupedBatchNorm, batch_norm
from collab_jax.training.build import create_experiment
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import train_step


def test_each_part_is_normalised_by_itself():
    x = jax.random.normal(jax.random.key(0), (6, 3, 2, 4)) * 2 + 1
    grouped, plain = GroupedBatchNorm(3), nn.BatchNorm(use_running_average=False, momentum=0.9)
    variables = grouped.init(jax.random.key(1), x)
    reference = plain.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, reference)
    y, updated = grouped.apply(variables, x, mutable=["batch_stats"])
    parts = [plain.apply(reference, part, mutable=["batch_stats"]) for part in jnp.split(x, 3)]
    np.testing.assert_allclose(y, jnp.concatenate([part for part, _ in parts]), atol=1e-5)
    for name, value in updated["batch_stats"].items():
        mean = np.mean([new["batch_stats"][name] for _, new in parts], axis=0)
        np.testing.assert_allclose(value, mean, atol=1e-5)
    with pytest.raises(ValueError, match="groups: 4 given for a batch of 6; expected a factor"):
        GroupedBatchNorm(4).init(jax.random.key(1), x)
    inference = batch_norm(train=False, groups=3, dtype=jnp.float32, name="norm")
    assert isinstance(inference, nn.BatchNorm)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=320)


def first_step(digits, order, **overrides):
    config = tiny_config(
        "mid+kernel", model__dropout=0.0, data__crop=False, data__label_noise=0.3, **overrides
    )
    parts = create_experiment(config, DataInfo.of(digits), 5)
    state = create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), seed=0)
    images, labels = digits.train.take(order)
    batch = Batch(images=images, labels=labels, indices=jnp.asarray(order))
    return jax.jit(partial(train_step, parts.settings))(state, batch)


@pytest.mark.slow
def test_micro_batches_have_the_mean_gradient_of_their_parts(digits):
    """The same parts, once side by side in one batch whose norm is over parts, once in turn."""
    order = np.arange(64)
    of_parts, report = first_step(digits, order.reshape(16, 4).T.reshape(-1), model__norm_groups=4)
    in_turn, other = first_step(digits, order, micro_batches=4)
    for name in ("loss", "mid", "kernel", "top1_wrong"):
        np.testing.assert_allclose(other[name], report[name], rtol=1e-5, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6),
        (in_turn.params, in_turn.heads, in_turn.opt_state),
        (of_parts.params, of_parts.heads, of_parts.opt_state),
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"micro_batches": 3}, "batch_size = 64: expected a multiple of 3"),
        ({"model__norm_groups": 48}, "batch_size = 64: expected a multiple of 48"),
        ({"micro_batches": 64}, "at least 128 with method pull_push"),
    ],
)
def test_batches_without_equal_parts_are_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        tiny_config("pull_push", **overrides)
