"""What the compiled programs of a run have to have in common."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


@pytest.mark.parametrize(
    ("optimizer", "nonfinite"), [("sgd", "stop"), ("adamw", "stop"), ("lion", "skip")]
)
def test_what_an_update_reads_waits_for_its_gradient(optimizer, nonfinite):
    parts = build.create_experiment(
        tiny_config("kernel", optimizer__name=optimizer, nonfinite=nonfinite), INFO, 2
    )
    read = readers(parts.settings, parts)
    moments = [
        names for path, names in read.items() if path.startswith(".opt_state") and "['" in path
    ]
    kernels = [
        names for path, names in read.items() if path.startswith(".params") and "conv" in path
    ]
    assert moments and all(names == {"optimization_barrier"} for names in moments)
    assert kernels
    assert all(
        "optimization_barrier" in names and not names & {"add", "sub", "mul", "select_n"}
        for names in kernels
    )


def test_an_optimizer_of_some_parameters_alone_takes_a_step():
    parts = made("kernel")
    some = optax.masked(optax.trace(0.9), lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree))
    some = optax.chain(some, optax.scale_by_learning_rate(lambda count: 0.1))
    settings = replace(parts.settings, optimizer=some)
    assert readers(settings, replace(parts, optimizer=some))


def readers(settings, parts):
    """What computes with each array of the state, by the array's path: names of primitives."""
    state = jax.eval_shape(
        lambda: create_train_state(
            parts.model, parts.objective, parts.optimizer, INFO.image_shape, 0
        )
    )
    images = jax.ShapeDtypeStruct((64, 8, 8, 1), jnp.uint8)
    numbers = jax.ShapeDtypeStruct((64,), jnp.int32)
    batch = Batch(images=images, labels=numbers, indices=numbers)
    jaxpr = jax.make_jaxpr(partial(train_step, settings))(state, batch).jaxpr
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    return {
        path: {equation.primitive.name for equation in jaxpr.eqns if variable in equation.invars}
        for path, variable in zip(paths, jaxpr.invars, strict=False)
    }


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
