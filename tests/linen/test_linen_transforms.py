"""Capture under the transforms of JAX and Flax, and with what parameters may be."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from collab_jax import linen


class Cell(nn.Module):
    """A layer with batch statistics, dropout and a second collection of weights."""

    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x):
        init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
        y = nn.Dense(4, kernel_init=init, dtype=self.dtype, name="dense")(x)
        low = self.variable("lora", "low", lambda: jnp.full((4, 4), 0.1))
        y = y + x.astype(self.dtype) @ low.value.astype(self.dtype)
        y = nn.BatchNorm(use_running_average=False, momentum=0.9, dtype=self.dtype)(y)
        return nn.Dropout(0.25, deterministic=False)(nn.tanh(y))


class Net(nn.Module):
    kind: str = "plain"
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="stem")(x)
        axes = {"params": 0, "lora": 0, "batch_stats": 0, "intermediates": 0}
        lift = {
            "variable_axes": axes,
            "split_rngs": {"params": True, "dropout": True},
            "metadata_params": {nn.PARTITION_NAME: "depth"},
        }
        if self.kind == "scan":
            body = lambda cell, x, _: (cell(x), None)  # noqa: E731
            scanned = nn.scan(body, length=2, **lift)
            x, _ = scanned(Cell(self.dtype, name="cells"), x, None)
        elif self.kind == "vmap":
            many = nn.vmap(Cell, in_axes=None, axis_size=2, **lift)
            x = many(self.dtype, name="cells")(x).mean(axis=0)
        else:
            make = nn.remat(Cell) if self.kind == "remat" else Cell
            shared = make(self.dtype, name="cells")
            x = shared(x)
            if self.kind == "shared":
                x = shared(x)
        return nn.Dense(3, name="last")(x)


KINDS = {
    "plain": ["cells"],
    "remat": ["cells"],
    "shared": ["cells", "cells#2"],
    "scan": ["cells[0]", "cells[1]"],
    "vmap": ["cells[0]", "cells[1]"],
}
X = jax.random.normal(jax.random.key(5), (6, 4))
OPTIONS = {"rngs": {"dropout": jax.random.key(2)}, "mutable": ["batch_stats"]}


def start(kind, dtype=jnp.float32):
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return dict(jax.jit(Net(kind, dtype).init)(keys, X))


@pytest.mark.parametrize("kind", KINDS)
def test_every_transform(kind):
    model, variables = Net(kind), start(kind)
    stats = variables.pop("batch_stats")

    def plain(trained):
        return model.apply({**trained, "batch_stats": stats}, X, **OPTIONS)

    def run(trained, joint=True):
        return linen.capture(
            model, {**trained, "batch_stats": stats}, X, layers=Cell, joint=joint, **OPTIONS
        )

    @jax.jit
    def main(trained):
        def loss(trained, form):
            outputs, state = form(trained)
            return (outputs**3).sum(), (outputs, state)

        captured = lambda trained: (run(trained).outputs, run(trained).variables)  # noqa: E731
        both = [
            jax.value_and_grad(lambda t, form=form: loss(t, form), has_aux=True)(trained)
            for form in (plain, captured)
        ]
        local = [
            jax.grad(
                lambda t, joint=joint: sum(
                    (i + 1) * (h**2).sum() for i, h in enumerate(run(t, joint).features)
                )
            )(trained)
            for joint in (True, False)
        ]
        return both, local

    assert list(jax.eval_shape(run, variables).paths) == KINDS[kind]
    both, (joint, reference) = main(variables)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)  # noqa: E731
    jax.tree.map(close, *both)
    jax.tree.map(close, joint, reference)
    for name in ("stem", "last"):
        assert not any(map(np.any, jax.tree.leaves(joint["params"][name])))
    # Weights in a second collection are the layer's own.
    assert np.any(joint["lora"]["cells"]["low"])


def test_half_precision_donated_sharded_state_and_frozen_parts():
    model, variables = Net(dtype=jnp.bfloat16), start("plain", jnp.bfloat16)
    stats, lora = variables.pop("batch_stats"), variables.pop("lora")
    params = variables["params"]
    assert isinstance(params["cells"]["dense"]["kernel"], nn.Partitioned)
    labels = {"stem": "frozen", "cells": "moved", "last": "moved"}
    transforms = {"moved": optax.sgd(0.1), "frozen": optax.set_to_zero()}
    optimizer = optax.multi_transform(transforms, labels)
    mesh = Mesh(np.array(jax.devices()[:1]), ("model",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = jax.device_put((params, stats, optimizer.init(params)), everywhere)
    kept = jax.tree.map(np.array, params)

    def step(state):
        params, stats, opt_state = state

        def loss(params):
            variables = {"params": params, "batch_stats": stats, "lora": lora}
            found = linen.capture(model, variables, X, layers=Cell, **OPTIONS)
            assert found.features[0].dtype == jnp.bfloat16
            values = (found.outputs**2).mean() + (found.features[0].astype(jnp.float32) ** 2).mean()
            return values, found.variables["batch_stats"]

        gradient, stats = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state

    params, _, _ = jax.jit(step, donate_argnums=0)(state)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), kept, params)
    assert not any(jax.tree.leaves(moved["stem"]))
    assert all(jax.tree.leaves(moved["last"])) and any(jax.tree.leaves(moved["cells"]))


def test_a_program_that_is_traced_before_it_is_differentiated():
    model, variables = Net("scan"), start("scan")

    @jax.jit
    def features(variables):
        return linen.capture(model, variables, X, layers=Cell, **OPTIONS).features

    def loss(params, form):
        return sum((h**2).sum() for h in form({**variables, "params": params}))

    late = jax.grad(loss)(variables["params"], features)
    direct = jax.grad(loss)(variables["params"], features.__wrapped__)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), late, direct)
