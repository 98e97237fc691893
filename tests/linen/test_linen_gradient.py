"""What a loss on a feature moves: its layer alone, all before it, or both, as one asks for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax import linen

LAYERS = {"layers": "layer*/conv", "then": "layer*/norm"}


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))


class Net(nn.Module):
    kind: type = Layer

    @nn.compact
    def __call__(self, x, train=True):
        self.sow("intermediates", "seen", x.mean())
        for number in range(3):
            x = self.kind(name=f"layer{number}")(x, train)
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=2,
        )
        x, _ = blocks(name="blocks")(x, None)
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.Conv(4, (3, 3), name="conv")(x), None


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(jax.random.key(0), (2, 6, 6, 2))


@pytest.fixture(scope="module")
def variables(inputs):
    return {k: v for k, v in Net().init(jax.random.key(1), inputs).items() if k != "intermediates"}


def bent(x):
    """A number that a norm does not hold constant."""
    return jnp.sin(2 * x + 0.3).sum()


def moved(loss, params):
    gradient = jax.jit(jax.grad(loss))(params)
    return {name for name, tree in gradient.items() if any(map(jnp.any, jax.tree.leaves(tree)))}


def features(variables, inputs, model=None, **options):
    def of(params, **more):
        found = linen.capture(
            model or Net(), {**variables, "params": params}, inputs, **{**LAYERS, **options, **more}
        )
        return found.features

    return of


@pytest.mark.parametrize("kind", [Layer, nn.remat(Layer, static_argnums=(2,))])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_feature_that_passes_through_moves_all_before_it(variables, inputs, number, kind):
    of = features(variables, inputs, Net(kind), gradient="through")
    names = {f"layer{i}" for i in range(number + 1)}
    assert moved(lambda p: bent(of(p)[number]), variables["params"]) == names


def test_both_are_the_local_copy_and_the_output(variables, inputs):
    both = features(variables, inputs, gradient="both")
    for number in range(3):
        reached = [
            moved(lambda p, n=number, c=copy: bent(both(p)[n][c]), variables["params"])
            for copy in (0, 1)
        ]
        assert reached == [{f"layer{number}"}, {f"layer{i}" for i in range(number + 1)}]
    local = features(variables, inputs)(variables["params"])
    through = features(variables, inputs, gradient="through")(variables["params"])
    for pair, a, b in zip(both(variables["params"]), local, through, strict=True):
        np.testing.assert_array_equal(pair[0], a)
        np.testing.assert_array_equal(pair[1], b)


@pytest.mark.parametrize("gradient", ["local", "through", "both", "local_only"])
def test_outputs_and_updates_are_the_models_own(variables, inputs, gradient):
    expected, updated = Net().apply(variables, inputs, mutable=["batch_stats"])
    found = linen.capture(Net(), variables, inputs, gradient=gradient, **LAYERS)
    np.testing.assert_array_equal(found.outputs, expected)
    jax.tree.map(np.testing.assert_array_equal, found.variables, dict(updated))
    assert found.paths == tuple(f"layer{i}/norm" for i in range(3))
    kept = linen.capture(
        Net(),
        variables,
        inputs,
        gradient=gradient,
        mutable=["batch_stats", "intermediates"],
        **LAYERS,
    )
    assert set(kept.variables["intermediates"]) == {"seen"}


@pytest.mark.parametrize("gradient", ["local", "through", "both"])
def test_the_gradient_of_the_outputs_is_the_models_own(variables, inputs, gradient):
    def plain(params):
        outputs, _ = Net().apply({**variables, "params": params}, inputs, mutable=["batch_stats"])
        return jnp.sin(outputs).sum()

    def captured(params):
        given = {**variables, "params": params}
        return jnp.sin(linen.capture(Net(), given, inputs, gradient=gradient, **LAYERS)[0]).sum()

    expected, found = (jax.jit(jax.grad(f))(variables["params"]) for f in (plain, captured))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected
    )


@pytest.mark.parametrize("joint", [True, False])
def test_with_local_only_the_outputs_move_what_follows_the_last_layer(variables, inputs, joint):
    def output(params):
        found = linen.capture(
            Net(), {**variables, "params": params}, inputs, gradient="local_only", joint=joint,
            **LAYERS,
        )  # fmt: skip
        return jnp.sin(found.outputs).sum()

    assert moved(output, variables["params"]) == {"head"}
    of = features(variables, inputs, gradient="local_only", joint=joint)
    for number in range(3):
        reached = moved(lambda p, n=number: bent(of(p)[n]), variables["params"])
        assert reached == {f"layer{number}"}


def test_layers_of_a_scan(inputs):
    variables = {"params": Scanned().init(jax.random.key(0), inputs)["params"]}
    options = {"layers": "blocks/conv", "then": None}

    def slices(gradient, pick):
        of = features(variables, inputs, Scanned(), gradient=gradient, **options)
        found = jax.jit(jax.grad(lambda p: jnp.sin(pick(of(p))).sum()))(variables["params"])
        kernel = found["blocks"]["conv"]["kernel"]
        return [bool(jnp.any(kernel[i])) for i in (0, 1)], bool(jnp.any(found["stem"]["kernel"]))

    assert slices("through", lambda f: f[1]) == ([True, True], True)
    assert slices("through", lambda f: f[0]) == ([True, False], True)
    assert slices("both", lambda f: f[1][0]) == ([False, True], False)
    assert slices("both", lambda f: f[1][1]) == ([True, True], True)
    assert slices("local_only", lambda f: f[1]) == ([False, True], False)


@pytest.mark.misuse
def test_errors_say_what_is_wrong(variables, inputs):
    with pytest.raises(linen.CaptureError, match="gradient='global': expected one of local, thr"):
        linen.capture(Net(), variables, inputs, gradient="global", **LAYERS)
    with pytest.raises(linen.CaptureError, match="gradient='through' needs layers"):
        linen.capture(Net(), variables, inputs, gradient="through")
