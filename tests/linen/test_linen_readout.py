"""Features that are read inside of their layers, where that can be, and the same elsewhere."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attached import Case
from jax.tree_util import Partial
from test_linen_transforms import KINDS, Net

from collab_jax import linen
from collab_jax.isolation import CaptureError


class Training(nn.Module):
    """A network of `Net`'s kinds that is called as `Case` calls one."""

    kind: str

    @nn.compact
    def __call__(self, x, train):
        return Net(self.kind, name="net")(x)


def case_of(kind):
    inputs = jax.random.normal(jax.random.key(5), (6, 4))
    return Case(Training(kind), inputs, layers="**/cells")


def reader(kernels):
    """The square sums of a feature's product with its own kernel, beside the feature's number."""

    def readout(number):
        def read(kernel, h):
            return {"number": number, "sums": jnp.square(h @ kernel).sum(axis=-1)}

        return Partial(read, kernels[number])

    return readout


def gradients(case, kernels, inside, **options):
    """Of the outputs, the new variables and what is read, by parameters, kernels and inputs."""

    def loss(params, kernels, inputs):
        readout = reader(kernels)
        found = case.capture(params, inputs, readout=readout if inside else None, **options)
        read = found.features if inside else [readout(i)(h) for i, h in enumerate(found.features)]
        assert [one["number"] for one in read] == list(range(len(found.paths)))
        sums = sum((i + 1) * jnp.sin(one["sums"]).sum() for i, one in enumerate(read))
        return sums + found.outputs.sum(), (sums, found.variables)

    of = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    return jax.jit(of)(case.params, kernels, case.inputs)


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_and_its_gradients_are_those_of_the_features(kind, remat):
    case = case_of(kind)
    kernels = jax.random.normal(jax.random.key(6), (2, 4, 3))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
        gradients(case, kernels, inside=True, remat=remat),
        gradients(case, kernels, inside=False),
    )


@pytest.mark.parametrize("options", [{"joint": False}, {"feature": lambda path, h: 2 * h}])
def test_what_cannot_be_read_inside_is_read_afterwards(options):
    case, kernels = case_of("plain"), jnp.ones((1, 4, 3))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
        gradients(case, kernels, inside=True, **options),
        gradients(case, kernels, inside=False, **options),
    )


class Joined(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        for number in range(2):
            x = nn.Dense(4, name=f"dense{number}")(x)
            x = nn.BatchNorm(use_running_average=False, name=f"norm{number}")(x)
        return x


def test_layers_that_others_join_are_read_as_wholes():
    case = Case(Joined(), jax.random.normal(jax.random.key(5), (6, 4)), layers=nn.Dense)
    case.selection["then"] = nn.BatchNorm
    kernels = jax.random.normal(jax.random.key(6), (2, 4, 3))
    inside, outside = (gradients(case, kernels, inside) for inside in (True, False))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), inside, outside
    )


def test_what_is_read_leaves_the_inputs_and_other_layers_exactly_alone():
    case = Case(Joined(), jax.random.normal(jax.random.key(5), (6, 4)), layers="dense1")

    def loss(params, inputs):
        found = case.capture(params, inputs, readout=lambda number: jnp.sum)
        return found.features[0]

    of_params, of_inputs = jax.grad(loss, argnums=(0, 1))(case.params, case.inputs)
    moved = {name for name, tree in of_params.items() if any(x.any() for x in tree.values())}
    assert moved == {"dense1"} and not np.asarray(of_inputs).any()


def test_both_gradients_give_what_is_read_and_the_output():
    case = case_of("shared")
    found = case.capture(case.params, case.inputs, gradient="both", readout=lambda i: jnp.sum)
    whole = case.capture(case.params, case.inputs, gradient="both")
    for (read, through), (local, same) in zip(found.features, whole.features, strict=True):
        np.testing.assert_allclose(read, local.sum(), rtol=1e-5)
        np.testing.assert_array_equal(through, same)


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x), x


def test_a_layer_whose_output_is_no_array_is_told():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Pair(name="pair")(x)[0]

    x = jnp.ones((3, 4))
    variables = Two().init(jax.random.key(0), x)
    with pytest.raises(CaptureError, match="'pair'"):
        linen.capture(Two(), variables, x, layers=Pair, readout=lambda number: jnp.sum)


class SetUp(nn.Module):
    def setup(self):
        self.dense = nn.Dense(4)

    def __call__(self, x):
        return nn.relu(self.dense(x))


class OfSetUp(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(SetUp(name="second")(SetUp(name="first")(x)))


@pytest.mark.parametrize("layers", [SetUp, nn.Dense])
def test_a_module_that_reads_is_no_layer_of_the_model(layers):
    x = jax.random.normal(jax.random.key(5), (6, 4))
    variables = OfSetUp().init(jax.random.key(0), x)

    dense = nn.Dense(3)

    def readout(number):
        def read(params, h):
            return dense.apply({"params": params}, h)

        return Partial(
            read, {"kernel": jnp.ones((2 if number == 2 else 4, 3)), "bias": jnp.ones(3)}
        )

    found = linen.capture(OfSetUp(), variables, x, layers=layers, readout=readout)
    whole = linen.capture(OfSetUp(), variables, x, layers=layers)
    assert found.paths == whole.paths
    for read, feature in zip(found.features, whole.features, strict=True):
        expected = jnp.broadcast_to(feature.sum(axis=1, keepdims=True) + 1, read.shape)
        np.testing.assert_allclose(read, expected, rtol=1e-5, atol=1e-6)
