"""Isolation that an NNX model calls itself: the ways in which its layers are written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nnx_checks import equal, flat_gradient

from collab_jax import nnx as collab_nnx


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def gradients(make, x, call, wrt=nnx.Param):
    """`(main, local)` gradients with respect to a model and its input, under nnx.jit."""

    @nnx.jit(static_argnums=2)
    def gradient(model, x, which):
        def loss(model, x):
            return jnp.sin(call(model, x)[which]).sum()

        differentiate = nnx.value_and_grad(loss, argnums=(nnx.DiffState(0, wrt), 1))
        return differentiate(model, x)[1]

    return [gradient(make(), x, which) for which in (0, 1)]


class Holder(nnx.Module):
    """A layer and a stream beside it."""

    def __init__(self, layer):
        self.layer = layer
        self.rngs = nnx.Rngs(dropout=3)


def test_dropout_with_rngs_by_keyword(x):
    def make():
        return Holder(nnx.Dropout(0.5))

    def isolated(model, x):
        return collab_nnx.isolate(model.layer, x, rngs=model.rngs)

    def plain(model, x):
        h = model.layer(x, rngs=model.rngs)
        return h, h

    (_, main), (_, local) = gradients(make, x, isolated)
    np.testing.assert_array_equal(main, gradients(make, x, plain)[0][1])
    assert (np.asarray(local) == 0).all() and (np.asarray(main) == 0).any()
    ours, theirs = make(), make()
    for _ in range(2):
        h, h_local = isolated(ours, x)
        np.testing.assert_array_equal(h, h_local)
        np.testing.assert_array_equal(h, plain(theirs, x)[0])
    assert ours.rngs.dropout.count[...] == theirs.rngs.dropout.count[...] == 2


class Lora(nnx.Variable):
    pass


class Layer(nnx.Module):
    """A tuple out; a flag and a record in; a second collection, a norm and a plain array."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs)])
        self.lora = Lora(rngs.params.normal((4, 4)))
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.shift = nnx.data(np.ones((1, 4), np.float32))

    def __call__(self, x, train, record):
        h = x @ self.lora[...] + self.shift
        for layer in self.layers:
            h = h + layer(x)
        h = self.norm(h, use_running_average=not train)
        record["h"] = h
        return h, {"mode": "train" if train else "eval", "none": None}


@pytest.mark.parametrize("train", [True, False])
def test_a_layer_with_all_of_it(x, train):
    def isolated(model, x):
        record = {}
        (h, rest), (h_local, _) = collab_nnx.isolate(model, x, train, record)
        assert rest == {"mode": "train" if train else "eval", "none": None}
        return h + record["h"], h_local

    def plain(model, x):
        record = {}
        h, _ = model(x, train, record)
        h_local, _ = nnx.clone(model)(jax.lax.stop_gradient(x), train, {})
        return h + record["h"], h_local

    wrt = nnx.Any(nnx.Param, Lora)
    main, local = gradients(Layer, x, isolated, wrt)
    expected_main, expected_local = gradients(Layer, x, plain, wrt)
    equal(flat_gradient(main[0]), flat_gradient(expected_main[0]))
    np.testing.assert_array_equal(main[1], expected_main[1])
    assert (np.asarray(local[1]) == 0).all()
    local, expected = flat_gradient(local[0]), flat_gradient(expected_local[0])
    assert (local.pop("lora") == 0).all(), "a type that is no nnx.Param is no parameter"
    del expected["lora"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), local, expected
    )
    ours, theirs = Layer(), Layer()
    isolated(ours, x), theirs(x, train, {})
    equal(nnx.as_pure(nnx.state(ours)), nnx.as_pure(nnx.state(theirs)))


def test_sequential_and_a_parameter_that_a_pass_changes(x):
    class Normalised(nnx.Module):
        def __init__(self):
            self.kernel = nnx.Param(nnx.Rngs(0).params.normal((4, 4)))

        def __call__(self, x):
            self.kernel[...] = self.kernel[...] / jnp.linalg.norm(self.kernel[...])
            return x @ self.kernel[...]

    def make():
        return nnx.Sequential(Normalised(), nnx.relu, nnx.Linear(4, 2, rngs=nnx.Rngs(1)))

    ours, theirs = make(), make()
    h, h_local = collab_nnx.isolate(ours, x)
    np.testing.assert_array_equal(h, theirs(x))
    np.testing.assert_array_equal(h, h_local)
    equal(nnx.as_pure(nnx.state(ours)), nnx.as_pure(nnx.state(theirs)))


def test_features_that_a_model_sows_below_its_root_come_in_call_order(x):
    class Block(nnx.Module):
        def __init__(self, seed):
            self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(seed))

        def __call__(self, x):
            h, h_local = collab_nnx.isolate(self.linear, x)
            self.sow(nnx.Intermediate, "local_features", h_local)
            self.sow(nnx.Intermediate, "other", h)
            return h

    class Model(nnx.Module):
        def __init__(self):
            self.a, self.b = Block(0), Block(1)
            self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(2))

        def __call__(self, x):
            x = self.b(x)
            x, h_local = collab_nnx.isolate(self.linear, x)
            self.sow(nnx.Intermediate, "local_features", h_local)
            return self.b(self.a(x))

    model = Model()
    captured = collab_nnx.capture(model, x)
    name = "local_features"
    assert captured.paths == (f"b/{name}", name, f"a/{name}", f"b/{name}#2")
    np.testing.assert_array_equal(captured.features[-1], captured.outputs)
    np.testing.assert_array_equal(captured.features[0], model.b.linear(x))

    def call(model, x):
        return collab_nnx.capture(model, x)

    outer, sown = nnx.capture(call, nnx.Intermediate)(model, x)
    assert outer.paths == captured.paths
    np.testing.assert_array_equal(sown["a"]["other"].get_value()[0], captured.features[2])
