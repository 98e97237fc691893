"""One key a purpose, of one generator, whatever the environment says."""

import itertools
import os
import subprocess
import sys
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax.data.label_noise import noisy_labels
from collab_jax.training.keys import Purpose, key_for, root_key


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_no_two_purposes_share_a_key_where_a_step_is_an_epoch():
    root = root_key(0)
    keys = [data(root)]
    for purpose, number in itertools.product(get_args(Purpose), range(50)):
        key = key_for(purpose, root)
        keys += [data(key)] if number == 0 else []
        keys.append(data(jax.random.fold_in(key, number)))
    assert len(set(keys)) == len(keys)


def test_a_key_is_the_same_from_its_data():
    root = root_key(3)
    assert data(key_for("dropout", root)) == data(key_for("dropout", jax.random.key_data(root)))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_noise_does_not_depend_on_the_batchs_order_whatever_the_generator(impl):
    labels, order = jnp.zeros(64, jnp.int32), jnp.arange(64)[::-1]
    key = jax.random.key(1, impl=impl)

    def noise(indices):
        return noisy_labels(labels, indices, 2, key=key, level=0.5, num_classes=10)

    straight = noise(jnp.arange(64))
    assert 0 < (straight != 0).sum() < 64
    np.testing.assert_array_equal(noise(order), straight[order])


_STEP = """
import sys; sys.path.insert(0, "tests")
import jax, numpy as np
import jax.numpy as jnp
from functools import partial
from tiny import tiny_config
from collab_jax import data
from collab_jax.data import DataInfo
from collab_jax.training.build import create_experiment
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import train_chunk, train_step

digits = data.load("digits", train_examples=320)
parts = create_experiment(
    tiny_config(
        "out", model__name="resnet32", data__label_noise=0.3, data__cutout=2,
        data__mixup=0.3, data__cutmix=1.0, data__label_smoothing=0.1,
    ),
    DataInfo.of(digits), 5,
)
state = create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), 0)
images, labels = digits.train.take(np.arange(8))
batch = Batch(jnp.asarray(images), jnp.asarray(labels, jnp.int32), jnp.arange(8, dtype=jnp.int32))
batches = jax.tree.map(lambda x: jnp.stack([x, x]), batch)
state, report = jax.jit(partial(train_chunk, partial(train_step, parts.settings)))(state, batches)
assert {leaf.dtype.name for leaf in jax.tree.leaves(state.params)} == {"float32"}
print(float(report["loss"]))
"""


@pytest.mark.slow
def test_steps_are_those_of_the_defaults_in_64_bits_and_with_another_default_generator():
    losses = {}
    for name, value in (("", ""), ("JAX_ENABLE_X64", "1"), ("JAX_DEFAULT_PRNG_IMPL", "rbg")):
        env = {**os.environ, **({name: value} if name else {})}
        done = subprocess.run(
            [sys.executable, "-c", _STEP], env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        losses[name] = float(done.stdout)
    assert losses["JAX_DEFAULT_PRNG_IMPL"] == losses[""]
    np.testing.assert_allclose(losses["JAX_ENABLE_X64"], losses[""], rtol=1e-5)
