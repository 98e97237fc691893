"""A batch for networks of the tests' own."""

import jax
import jax.numpy as jnp
import pytest
from small_cnn import CNN


@pytest.fixture(scope="module")
def batch():
    images = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))
    return images, jnp.array([0, 1, 2, 3, 4, 0])


@pytest.fixture(scope="module")
def variables(batch):
    return CNN().init(jax.random.key(0), batch[0])
