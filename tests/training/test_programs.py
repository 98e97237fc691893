"""What the compiled programs of a run have to have in common."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ALL_TERMS, tiny_config

from collab_jax.data import DataInfo
from collab_jax.training import build
from collab_jax.training.evaluation import eval_step
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import train_step

INFO = DataInfo(10, tuple("abcdefghij"), (8, 8, 1), (0.5,), (0.2,))


def made(method):
    return build.create_experiment(tiny_config(method), INFO, steps_per_epoch=2)


@pytest.mark.parametrize("method", [ALL_TERMS, "tree", "multi_instance"])
def test_evaluation_is_the_same_program_whatever_the_method(method):
    def program(method):
        parts = made(method)

        def init():
            state = create_train_state(
                parts.model, parts.objective, parts.optimizer, INFO.image_shape, 0
            )
            return {"params": state.params, "batch_stats": state.batch_stats}

        arrays = jnp.zeros((4, 8, 8, 1)), jnp.zeros((4,), jnp.int32), jnp.ones((4,), bool)

        def step(variables, *arrays):
            return eval_step(parts.model, variables, *arrays)

        return jax.jit(step).lower(jax.eval_shape(init), *arrays).as_text()

    assert program(method) == program("baseline")


def test_the_first_state_is_one_program(caplog):
    parts = made(ALL_TERMS)
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        create_train_state(parts.model, parts.objective, parts.optimizer, INFO.image_shape, 0)
    compiled = [text for text in caplog.messages if text.startswith("Finished XLA compilation")]
    assert sum("created" in text for text in compiled) == 1
    assert len(compiled) < 10  # with what makes a key from a seed


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion"])
def test_what_an_update_reads_waits_for_its_gradient(optimizer):
    def program(method):
        config = tiny_config(method, optimizer__name=optimizer)
        parts = build.create_experiment(config, INFO, steps_per_epoch=2)
        state = jax.eval_shape(
            lambda: create_train_state(
                parts.model, parts.objective, parts.optimizer, INFO.image_shape, 0
            )
        )
        arrays = {"images": ((64, 8, 8, 1), jnp.uint8), "labels": ((64,), jnp.int32)}
        arrays["indices"] = arrays["labels"]
        batch = Batch(**{name: jax.ShapeDtypeStruct(*array) for name, array in arrays.items()})
        text = jax.jit(partial(train_step, parts.settings)).lower(state, batch).as_text()
        return text.count("stablehlo.optimization_barrier"), len(jax.tree.leaves(state.params))

    # Parameters and their moments, and L_kernel's own.
    barriers, leaves = program("kernel")
    assert barriers == (3 if optimizer == "adamw" else 2) * leaves + 1
    assert program("baseline")[0] == 0


@pytest.mark.slow
def test_steps_after_the_first_compile_nothing():
    parts = made(ALL_TERMS)
    state = create_train_state(parts.model, parts.objective, parts.optimizer, INFO.image_shape, 0)
    rng = np.random.default_rng(0)
    traced = []

    def step(state, batch):
        traced.append(1)
        return train_step(parts.settings, state, batch)

    compiled = jax.jit(step, donate_argnums=0)
    for number in range(5):  # Over two epochs' ends and the decay of the learning rate.
        images = rng.integers(0, 256, (64, 8, 8, 1), np.uint8)
        labels = rng.integers(0, 10, 64).astype(np.int32)
        batch = Batch(images, labels, np.arange(64, dtype=np.int32) + number)
        state, _ = compiled(state, batch)
    assert len(traced) == 1
    assert compiled._cache_size() == 1
    assert int(state.step) == 5
