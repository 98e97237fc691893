"""Selections, names, errors and what `then` and `feature` do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax import linen


class Gate(nn.Module):
    """Used by a method other than `__call__` as well, or alone."""

    def setup(self):
        self.dense = nn.Dense(4)

    def __call__(self, x):
        return self.dense(x)

    def half(self, x):
        return self.dense(x) / 2


class Net(nn.Module):
    use: str = "call"

    def setup(self):
        self.first = nn.Dense(4)
        self.twice = nn.Dense(4)
        self.act = nn.PReLU()
        self.gate = Gate()
        self.spare = nn.Dense(2)

    def __call__(self, x):
        if self.is_initializing():
            self.spare(x)
        x = self.act(self.first(x))
        x = self.twice(jnp.tanh(self.twice(x)))
        return self.gate(x) if self.use == "call" else self.gate.half(x)

    def encode(self, x):
        return self.act(self.first(x))


X = jnp.array([[1.0, -2.0, 3.0, 0.5], [0.1, 0.2, -0.3, 0.4]])


@pytest.fixture(scope="module")
def variables():
    return Net().init(jax.random.key(0), X)


def capture(variables, model=None, **options):
    return linen.capture(model or Net(), variables, X, **options)


@pytest.mark.smoke
def test_names_of_what_is_selected(variables):
    found = capture(variables, layers=("first", "twice", Gate))
    assert found.paths == ("first", "twice", "twice#2", "gate")
    np.testing.assert_array_equal(found.features[-1], found.outputs)
    assert found.variables == {}
    assert capture(variables, layers=lambda path, m: path == "act").paths == ("act",)
    assert capture(variables, layers="first", method="encode").paths == ("first",)


@pytest.mark.smoke
def test_a_followed_layer_is_one_layer(variables):
    def loss(params, x, then):
        found = linen.capture(Net(), {"params": params}, x, layers="first", then=then)
        return found.features[0].sum(), found.paths

    gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
    (of_params, of_input), paths = gradient(variables["params"], X, nn.PReLU)
    assert paths == ("act",)
    moved = {name for name, tree in of_params.items() if any(map(np.any, jax.tree.leaves(tree)))}
    assert moved == {"first", "act"}
    assert not np.any(of_input)

    def alone(params):
        x = nn.Dense(4).apply({"params": params["first"]}, X)
        return nn.PReLU().apply({"params": params["act"]}, x).sum()

    alone = jax.grad(alone)(variables["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), of_params, alone)


class TwoNorms(nn.Module):
    """One convolution whose output two norms receive, as in networks for two domains."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, name="shared")(x)
        parts = [nn.LayerNorm(name=f"norm{i}")(x) for i in (0, 1)]
        return nn.Dense(4, name="last")(sum(parts))


@pytest.mark.parametrize("joint", [True, False])
def test_two_modules_may_join_one_layer(joint):
    variables = TwoNorms().init(jax.random.key(0), X)

    def loss(params, number):
        found = linen.capture(
            TwoNorms(), {"params": params}, X, layers="shared", then=nn.LayerNorm, joint=joint
        )
        assert found.paths == ("norm0", "norm1")
        return jnp.sin(found.features[number]).sum()

    for number in (0, 1):
        gradient = jax.grad(loss)(variables["params"], number)
        moved = {name for name, tree in gradient.items() if any(map(np.any, jax.tree.leaves(tree)))}
        assert moved == {"shared", f"norm{number}"}


def test_a_feature_may_be_a_part_of_the_output_or_made_of_it(variables):
    found = capture(variables, layers=("first", Gate), feature=lambda path, h: (path, h)[1] ** 2)
    np.testing.assert_array_equal(found.features[1], found.outputs**2)


def test_what_a_model_sows_itself_at_any_depth_comes_in_call_order():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x):
            h, h_local = linen.isolate(nn.Dense(4), x)
            self.sow("intermediates", linen.LOCAL_FEATURES, h_local)
            return h

    class Nest(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("intermediates", linen.LOCAL_FEATURES, x)
            self.sow("intermediates", "other", x)
            x = Layer(name="z")(x)
            x = Layer(name="a")(x)
            self.sow("intermediates", linen.LOCAL_FEATURES, x)
            return x

    variables = Nest().init(jax.random.key(0), X)
    assert set(variables) == {"params"}
    found = linen.capture(Nest(), variables, X)
    assert found.paths == ("", "z", "a", "#2")
    np.testing.assert_array_equal(found.features[3], found.outputs)
    # What an earlier pass left in the variables is not counted again.
    more = {**variables, "intermediates": {linen.LOCAL_FEATURES: (X, X, X)}}
    again = linen.capture(Nest(), more, X, mutable=["intermediates"])
    assert again.paths == found.paths
    assert set(again.variables["intermediates"]) == {"other"}


class Holder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Sequential([nn.Dense(4), nn.relu])(x), {"x": x}


ERRORS = {
    "nothing": (dict(layers="frist"), r"layers='frist' selects none.*mean 'first'.*'gate/dense'"),
    "inside": (dict(layers="gate/**"), r"selects 'gate/dense' and 'gate', which it runs inside"),
    "never": (dict(layers=("first", "spare")), r"'spare', which the model did not call"),
    "method": (
        dict(layers=("first", Gate), model=Net(use="half")),
        r"'gate' \(Gate\), which is used by half and not by __call__",
    ),
    "then nothing": (dict(layers="first", then="norm"), r"then='norm' selects none"),
    "then apart": (dict(layers="first", then="gate"), r"then='gate' selects 'gate', but no such"),
    "then alone": (dict(then="act"), r"then, feature and joint=False need layers"),
    "joint alone": (dict(joint=False), r"then, feature and joint=False need layers"),
    "no array": (
        dict(layers="first", feature=lambda path, h: [h]),
        r"feature gave \[float32\[2, 4\]\] for 'first' \(Dense\)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_says_what_is_wrong(variables, name):
    options, message = ERRORS[name]
    with pytest.raises(linen.CaptureError, match=message):
        capture(variables, **options)


def test_an_output_that_is_no_array_asks_for_a_feature():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Holder(name="holder")(x)[0]

    variables = Outer().init(jax.random.key(0), X)
    with pytest.raises(linen.CaptureError, match=r"'holder' \(Holder\) returns .*pass feature="):
        linen.capture(Outer(), variables, X, layers=Holder)


def test_a_program_that_nn_jit_kept_is_told():
    class Jitted(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.jit(Gate)(name="gate")(x)

    variables = Jitted().init(jax.random.key(0), X)
    for _ in range(2):
        assert linen.capture(Jitted(), variables, X, layers="gate").paths == ("gate",)
