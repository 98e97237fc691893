"""SGD against PyTorch's update rule, written out in NumPy; schedules and other optimizers."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from collab_jax import config as config_lib
from collab_jax.training.optimizer import create_optimizer, learning_rate_schedule, steps_taken


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


def test_decays_as_parts_of_a_run_keep_their_place_in_a_shorter_one():
    for epochs, steps in ((200, 390), (2, 390), (1, 10)):
        schedule = learning_rate_schedule(configured(epochs=epochs), steps)
        total = epochs * steps
        rates = [0.1, 0.02, 0.004, 0.0008]
        for part, before, after in zip((0.3, 0.6, 0.8), rates, rates[1:], strict=False):
            step = round(part * total)
            np.testing.assert_allclose([schedule(step - 1), schedule(step)], [before, after])


def test_decays_that_fall_on_one_step_are_all_taken():
    schedule = learning_rate_schedule(configured(epochs=1), steps_per_epoch=2)
    np.testing.assert_allclose([schedule(i) for i in range(3)], [0.1, 0.004, 0.0008], rtol=1e-6)


def test_cosine_and_constant_schedules():
    cosine = learning_rate_schedule(configured(epochs=4, schedule="cosine"), steps_per_epoch=5)
    np.testing.assert_allclose([cosine(0), cosine(10), cosine(20)], [0.1, 0.05, 0.0], atol=1e-8)
    constant = learning_rate_schedule(configured(epochs=4, schedule="constant"), 5)
    assert {float(constant(step)) for step in (0, 10, 20)} == {0.1}


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_other_optimizers_decouple_the_weight_decay(name):
    changes = {"optimizer.name": name, "schedule": "constant", "weight_decay": 0.5}
    optimizer = create_optimizer(configured(**changes), steps_per_epoch=3)
    params = jnp.asarray([2.0, -4.0])
    updates, _ = optimizer.update(jnp.zeros(2), optimizer.init(params), params)
    np.testing.assert_allclose(updates, -0.1 * 0.5 * params, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion"])
def test_the_learning_rates_count_is_found_in_the_optimizers_state(name):
    optimizer = create_optimizer(configured(**{"optimizer.name": name}), steps_per_epoch=3)
    params = {"a": jnp.ones(2), "count": jnp.ones(3)}
    state = optimizer.init(params)
    for done in range(3):
        assert steps_taken(state) == done
        _, state = optimizer.update(params, state, params)
