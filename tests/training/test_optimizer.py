"""SGD against PyTorch's update rule, written out in NumPy."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from collab_jax import config as config_lib
from collab_jax.training.optimizer import create_optimizer, learning_rate_schedule


def configured(**changes):
    return config_lib.parse(config_lib.recipe("baseline", changes))


@pytest.mark.parametrize("nesterov", [False, True])
def test_updates_are_those_of_pytorchs_sgd(nesterov):
    config = configured(epochs=4, decay_epochs=(2, 3), weight_decay=0.01, nesterov=nesterov)
    optimizer = create_optimizer(config, steps_per_epoch=3)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=5)
    params = jnp.asarray(weights, jnp.float32)
    state = optimizer.init(params)
    buffer = np.zeros(5)
    for step in range(12):
        gradient = rng.normal(size=5)
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        decayed = gradient + 0.01 * weights
        buffer = 0.9 * buffer + decayed
        rate = 0.1 * 0.2 ** sum(step >= 3 * epoch for epoch in (2, 3))
        weights = weights - rate * (decayed + 0.9 * buffer if nesterov else buffer)
        np.testing.assert_allclose(params, weights, rtol=1e-5, atol=1e-6)


def test_warmup_rises_to_the_full_rate():
    config = configured(learning_rate=0.4, warmup_epochs=2.0)
    schedule = learning_rate_schedule(config, steps_per_epoch=2)
    np.testing.assert_allclose([schedule(i) for i in range(6)], [0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
