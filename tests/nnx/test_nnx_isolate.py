"""Local back-propagation and capture in the user's own NNX modules."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from collab_jax import nnx as collab_nnx


class Layer(nnx.Module):
    def __init__(self, filters, rngs):
        self.conv = nnx.Conv(filters, filters, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(filters, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.dropout(nnx.relu(self.norm(self.conv(x))))


class Deep(nnx.Module):
    def __init__(self, layers=12, mode="joint", filters=4):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([Layer(filters, rngs) for _ in range(layers)])
        self.mode = mode

    def __call__(self, x):
        for layer in self.layers:
            if self.mode == "none":
                x = layer(x)
                continue
            x, h_local = collab_nnx.isolate(layer, x, joint=self.mode == "joint")
            self.sow(nnx.Intermediate, collab_nnx.LOCAL_FEATURES, h_local)
        return x.mean(axis=(1, 2))


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 4, 4, 4)).astype(np.float32)


def arrays(state):
    def array(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return jax.tree.map(array, nnx.as_pure(state))


@pytest.mark.smoke
def test_gradient_is_exactly_zero_off_the_layer(x):
    @nnx.jit
    def gradient(model, x, weights):
        def loss(model, x):
            features = collab_nnx.capture(model, x).features
            return (weights * jnp.stack([(h**2).sum() for h in features])).sum()

        return nnx.grad(loss, argnums=(0, 1))(model, x)

    model = Deep()
    for layer in (0, 6, 11):
        of_model, of_input = gradient(model, x, np.eye(12, dtype=np.float32)[layer])
        assert (np.asarray(of_input) == 0).all()
        leaves = jax.tree_util.tree_leaves_with_path(nnx.as_pure(of_model))
        assert len(leaves) == 12 * 3
        for (_, number, *_), leaf in leaves:
            assert (np.asarray(leaf) != 0).any() == (number.key == layer)


@pytest.mark.parametrize("mode", ["joint", "plain"])
def test_capture_changes_nothing_and_updates_once(x, mode):
    plain, captured = Deep(mode="none"), Deep(mode=mode)
    for _ in range(2):
        expected = plain(x)
        result = collab_nnx.capture(captured, x)
        np.testing.assert_array_equal(result.outputs, expected)
    # Parameters, running statistics, and the keys and counters of the dropout streams.
    jax.tree.map(
        np.testing.assert_array_equal, arrays(nnx.state(captured)), arrays(nnx.state(plain))
    )
    statistics = nnx.as_pure(nnx.state(plain, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, result.variables, statistics)
    assert len(jax.tree.leaves(result.variables)) == 2 * 12
    copy = Deep(mode="none")
    nnx.update(copy, result.variables)
    np.testing.assert_array_equal(copy.layers[11].norm.mean[...], plain.layers[11].norm.mean[...])


def test_more_than_ten_layers_come_back_in_depth_order(x):
    features = collab_nnx.capture(Deep(), x).features
    assert len(features) == 12
    h = x
    for layer, feature in zip(Deep().layers, features, strict=True):
        h = layer(h)
        np.testing.assert_array_equal(feature, h)


def test_works_under_jax_transforms_of_split_state(x):
    definition, params, rest = nnx.split(Deep(layers=2), nnx.Param, ...)

    def loss(params, rest):
        captured = collab_nnx.capture(nnx.merge(definition, params, rest, copy=True), x)
        return captured.outputs.sum(), captured.variables

    gradient, statistics = jax.jit(jax.grad(loss, has_aux=True))(params, rest)
    model = Deep(layers=2, mode="none")
    model(x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        statistics,
        nnx.as_pure(nnx.state(model, nnx.BatchStat)),
    )
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(gradient))


def test_joint_costs_no_more_convolutions(x):
    def convolutions(mode):
        definition, params, rest = nnx.split(Deep(layers=3, mode=mode), nnx.Param, ...)

        def loss(params):
            model = nnx.merge(definition, params, rest, copy=True)
            if mode == "none":
                return (model(x) ** 2).sum()
            captured = collab_nnx.capture(model, x)
            return (captured.outputs**2).sum() + sum((h**2).sum() for h in captured.features)

        text = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
        return len(re.findall(r" convolution\(|custom-call.*conv", text))

    assert convolutions("none") == convolutions("joint") == 3 * 3 - 1


def test_forward_mode_and_second_derivatives(x):
    def loss(scale, mode):
        model = Deep(layers=1, mode=mode)
        captured = collab_nnx.capture(model, x + scale * jnp.sin(3 * x))
        return (captured.features[0] ** 2).sum() + (captured.outputs**3).sum()

    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jit(lambda: jax.jvp(lambda scale: loss(scale, "joint"), (1.0,), (1.0,))).lower()
    with pytest.raises(TypeError, match=r"differentiated once; joint=False"):
        jax.eval_shape(jax.grad(jax.grad(lambda scale: loss(scale, "joint"))), 1.0)

    joint, plain = (jax.jit(jax.grad(lambda s, m=m: loss(s, m)))(1.0) for m in ("joint", "plain"))
    tangent = jax.jit(lambda: jax.jvp(lambda s: loss(s, "plain"), (1.0,), (1.0,))[1])()
    np.testing.assert_allclose(tangent, plain, rtol=1e-4)
    np.testing.assert_allclose(joint, plain, rtol=1e-4)
    jax.eval_shape(jax.grad(jax.grad(lambda scale: loss(scale, "plain"))), 1.0)


def test_an_isolated_layer_may_sow_features_of_its_own(x):
    class Sowing(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            self.sow(nnx.Intermediate, "own", x)
            return self.linear(x)

    class Model(nnx.Module):
        def __init__(self):
            self.layer = Sowing()

        def __call__(self, x):
            h, h_local = collab_nnx.isolate(self.layer, x)
            self.sow(nnx.Intermediate, collab_nnx.LOCAL_FEATURES, h_local)
            return h

    model = Model()
    captured = collab_nnx.capture(model, x)
    np.testing.assert_array_equal(captured.features[0], captured.outputs)
    assert list(nnx.to_pure_dict(nnx.state(model))["layer"]) == ["linear"]


def test_a_model_that_sows_nothing_says_how_to(x):
    with pytest.raises(ValueError, match=r"Deep sows nothing.*self\.sow\(nnx\.Intermediate"):
        collab_nnx.capture(Deep(layers=1, mode="none"), x)
