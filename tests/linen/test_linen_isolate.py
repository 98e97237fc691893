"""Local back-propagation and capture in the user's own Linen modules."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax import linen


class Layer(nn.Module):
    filters: int = 6

    @nn.compact
    def __call__(self, x, *, train=True):
        x = nn.Conv(self.filters, (3, 3), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.relu(x)


class Deep(nn.Module):
    layers: int = 13
    mode: str = "joint"

    @nn.compact
    def __call__(self, x, *, train=True):
        captured = []
        for i in range(self.layers):
            layer = Layer(name=f"layer{i}")
            if self.mode == "none":
                x = layer(x, train=train)
                continue
            x, h_local = linen.isolate(layer, x, joint=self.mode == "joint", train=train)
            captured.append(h_local)
        for h_local in captured:
            self.sow("intermediates", linen.LOCAL_FEATURES, h_local)
        return x.mean(axis=(1, 2))


@pytest.fixture(scope="module")
def setup():
    x = jax.random.normal(jax.random.key(0), (4, 5, 5, 6))
    variables = jax.jit(Deep(mode="none").init)(jax.random.key(1), x)
    return variables, x


def loss_of(model, variables, layer):
    def loss(params, x):
        captured = linen.capture(model, {**variables, "params": params}, x)
        return (captured.features[layer] ** 2).sum()

    return loss


@pytest.mark.smoke
@pytest.mark.parametrize("layer", [0, 5, 12])
def test_gradient_is_exactly_zero_off_the_layer(setup, layer):
    variables, x = setup
    of_params, of_input = jax.jit(jax.grad(loss_of(Deep(), variables, layer), argnums=(0, 1)))(
        variables["params"], x
    )
    assert (np.asarray(of_input) == 0).all()
    for name, tree in of_params.items():
        for leaf in jax.tree.leaves(tree):
            assert (np.asarray(leaf) != 0).any() == (name == f"layer{layer}")


def test_capture_changes_nothing_run_op_by_op(setup):
    variables, x = setup
    with jax.disable_jit():
        plain, state = Deep(mode="none").apply(variables, x, mutable=["batch_stats"])
        captured = linen.capture(Deep(), variables, x)
    np.testing.assert_array_equal(plain, captured.outputs)
    jax.tree.map(np.testing.assert_array_equal, state, captured.variables)
    assert set(captured.variables) == {"batch_stats"}


def test_more_than_ten_layers_come_back_in_depth_order(setup):
    variables, x = setup
    features = linen.capture(Deep(), variables, x).features
    for i, feature in enumerate(features):
        shallow, _ = Deep(layers=i + 1, mode="none").apply(variables, x, mutable=["batch_stats"])
        np.testing.assert_array_equal(feature.mean(axis=(1, 2)), shallow)
    assert len(features) == 13


def test_joint_costs_no_more_convolutions(setup):
    variables, x = setup

    def convolutions(model):
        def loss(params):
            outputs, state = model.apply(
                {**variables, "params": params}, x, mutable=["batch_stats", "intermediates"]
            )
            local = jax.tree.leaves(state.get("intermediates", {}))
            return (outputs**2).sum() + sum((h**2).sum() for h in local)

        text = jax.jit(jax.grad(loss)).lower(variables["params"]).compile().as_text()
        return len(re.findall(r" convolution\(|custom-call.*conv", text))

    plain = convolutions(Deep(mode="none"))
    assert plain == 3 * 13 - 1
    assert convolutions(Deep()) == plain


def test_plain_form_agrees_with_joint_and_allows_forward_mode(setup):
    variables, x = setup
    joint, plain = Deep(layers=3), Deep(layers=3, mode="plain")

    def gradient(model):
        def loss(params, x):
            captured = linen.capture(
                model, {**variables, "params": params}, x, mutable=(), train=False
            )
            return sum((h**2).sum() for h in captured.features) + (captured.outputs**3).sum()

        return loss

    a = jax.grad(gradient(joint), argnums=(0, 1))(variables["params"], x)
    b = jax.grad(gradient(plain), argnums=(0, 1))(variables["params"], x)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-5), a, b)
    _, tangent = jax.jvp(lambda x: gradient(plain)(variables["params"], x), (x,), (x,))
    np.testing.assert_allclose(tangent, (b[1] * x).sum(), rtol=1e-3)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: gradient(joint)(variables["params"], x), (x,), (x,))


def test_dropout_inside_an_isolated_layer_uses_the_callers_rngs():
    class Dropped(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(0.5, deterministic=False)(nn.Dense(8)(x))

    class Model(nn.Module):
        capture: bool

        @nn.compact
        def __call__(self, x):
            layer = Dropped(name="layer")
            if not self.capture:
                return layer(x)
            h, h_local = linen.isolate(layer, x)
            self.sow("intermediates", linen.LOCAL_FEATURES, h_local)
            return h

    x = jnp.ones((4, 3))
    variables = Model(False).init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x)
    rngs = {"dropout": jax.random.key(2)}
    plain = Model(False).apply(variables, x, rngs=rngs)
    captured = linen.capture(Model(True), variables, x, mutable=(), rngs=rngs)
    np.testing.assert_array_equal(plain, captured.outputs)
    np.testing.assert_array_equal(plain, captured.features[0])


def test_a_model_that_sows_nothing_says_how_to(setup):
    variables, x = setup
    with pytest.raises(ValueError, match=r"Deep sows nothing.*self\.sow\('intermediates'"):
        linen.capture(Deep(mode="none"), variables, x)


class AnyLayer(nn.Module):
    """Holds modules, draws numbers, sows a loss, writes, and returns more than arrays."""

    inner: nn.Module

    def setup(self):
        self.drop = nn.Dropout(0.5)

    def __call__(self, x, train, acts, rng=None):
        y = self.drop(self.inner(x), deterministic=not train)
        acts["written"] = 2 * y
        acts["order"].append(y.sum())
        self.sow("losses", "size", (y**2).sum())
        return y + jax.random.normal(rng, y.shape), {"sum": y.sum(), "kind": "dense"}


class CallsAnyLayer(nn.Module):
    mode: str

    @nn.compact
    def __call__(self, x, train):
        inner = nn.Sequential([nn.Dense(4), nn.BatchNorm(use_running_average=not train), nn.tanh])
        layer, acts, local = AnyLayer(inner), {"order": []}, 0.0
        for _ in range(2):
            inputs, rng = (x, train, acts), self.make_rng("noise")
            if self.mode == "none":
                x, others = layer(*inputs, rng=rng)
            else:
                joint = self.mode == "joint"
                (x, others), (y, _) = linen.isolate(layer, *inputs, rng=rng, joint=joint)
                local = local + (y**3).sum()
            assert others["kind"] == "dense"
        assert len(acts["order"]) == 2
        return x + acts["written"] + sum(acts["order"]), local


@pytest.mark.parametrize("jit", [False, True])
def test_any_layer(jit):
    x = jax.random.normal(jax.random.key(0), (3, 4))
    keys = {name: jax.random.key(i) for i, name in enumerate(("params", "dropout", "noise"))}
    variables = CallsAnyLayer("none").init(keys, x, True)
    variables = {name: variables[name] for name in ("params", "batch_stats")}

    def run(mode, of_main, of_local):
        def loss(params, x):
            def apply(params, x):
                return CallsAnyLayer(mode).apply(
                    {**variables, "params": params},
                    x,
                    True,
                    rngs={name: keys[name] for name in ("dropout", "noise")},
                    mutable=["losses", "batch_stats"],
                )

            # A program of its own is traced before it is differentiated.
            (h, local), state = (jax.jit(apply) if jit else apply)(params, x)
            main = (h**2).sum() + sum(jax.tree.leaves(state["losses"]))
            return of_main * main + of_local * local, (h, state)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # noqa: E731
    equal = close if jit else np.testing.assert_array_equal
    jax.tree.map(equal, run("joint", 1.0, 0.0), run("none", 1.0, 0.0))
    (_, joint_state), of_joint = run("joint", 0.5, 1.0)
    (_, plain_state), of_plain = run("plain", 0.5, 1.0)
    jax.tree.map(close, of_joint, of_plain)
    jax.tree.map(equal, joint_state, plain_state)  # Updated once in either form.
    _, (of_params, of_input) = run("joint", 0.0, 1.0)
    assert not np.any(of_input)
    assert all(np.any(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(of_params)
               if path[-1].key != "bias")  # fmt: skip
