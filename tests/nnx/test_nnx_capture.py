"""Capture from outside: idioms of NNX, each with its model as other people write it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nnx_checks import Block, arrays, check_attached, equal

from collab_jax import nnx as collab_nnx


class ConvNet(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


def test_a_list_of_blocks_with_norm_and_dropout(x):
    owners = {f"blocks/{i}": [f"blocks/{i}"] for i in (0, 1)}
    check_attached(ConvNet, x, owners, layers=Block)


@pytest.mark.smoke
def test_a_norm_joins_its_convolution(x):
    owners = {f"blocks/{i}/norm": [f"blocks/{i}/conv", f"blocks/{i}/norm"] for i in (0, 1)}
    options = {
        "layers": "**/conv",
        "then": nnx.BatchNorm,
        "feature": lambda path, h: nnx.relu(h) if path.endswith("norm") else h,
    }
    check_attached(ConvNet, x, owners, **options)


def test_a_joined_norm_gives_the_gradient_of_both_as_one_layer(x):
    def local(selection, feature):
        def loss(model):
            features = collab_nnx.capture(model, x, layers=selection, **feature).features
            return (jnp.sin(features[1])).sum()

        model = ConvNet()
        model.eval()
        return nnx.jit(nnx.grad(loss))(model)

    joined = local("**/conv", {"then": "**/norm", "feature": lambda _, h: nnx.relu(h)})
    whole = local("blocks/*", {})
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        nnx.as_pure(joined),
        nnx.as_pure(whole),
    )


class TwoParts(nnx.Module):
    """One layer whose output two others receive, as in networks for two domains."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.shared = nnx.Linear(4, 4, rngs=rngs)
        self.parts = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in (0, 1)])
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = self.shared(x)
        return self.last(sum(part(x) for part in self.parts))


def test_two_modules_may_join_one_layer(vectors):
    owners = {f"parts/{i}": ["shared", f"parts/{i}"] for i in (0, 1)}
    check_attached(TwoParts, vectors, owners, layers="shared", then="parts/*")


def test_the_plain_form_has_forward_mode_and_second_derivatives(vectors):
    model = TwoParts()
    definition, state = nnx.split(model)

    def loss(scale, joint):
        weights = jax.tree.map(lambda x: scale * x, state)
        run = nnx.merge(definition, weights)
        features = collab_nnx.capture(run, vectors, layers=nnx.Linear, joint=joint).features
        return jnp.sin(features[0]).sum()

    first = jax.grad(loss)(1.0, True)
    np.testing.assert_allclose(jax.jvp(lambda s: loss(s, False), (1.0,), (1.0,))[1], first, 1e-5)
    assert np.isfinite(jax.grad(jax.grad(loss))(1.0, False))
    with pytest.raises(TypeError, match="joint"):
        jax.grad(jax.grad(loss))(1.0, True)


def test_sequential_and_what_is_selected_inside_it(x):
    def make():
        rngs = nnx.Rngs(0)
        conv = nnx.Sequential(nnx.Conv(4, 4, (3, 3), rngs=rngs), nnx.relu)
        return nnx.Sequential(conv, nnx.Conv(4, 2, (1, 1), rngs=rngs), nnx.relu)

    owners = {"layers/0": ["layers/0/layers/0"], "layers/1": ["layers/1"]}
    check_attached(make, x, owners, layers="layers/*")
    check_attached(make, x, {"layers/0/layers/0": ["layers/0/layers/0"]}, layers="**/layers/0/*/*")


class Attention(nnx.Module):
    """Returns a tuple and takes a dict, a mask that may be None, and a flag by position."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.dropout = nnx.Dropout(0.3)

    def __call__(self, inputs, mask, deterministic, rngs=None):
        h = jnp.tanh(self.linear(inputs["x"])) * (1 if mask is None else mask)
        h = self.dropout(h, deterministic=deterministic, rngs=rngs)
        return h, {"x": h + inputs["x"], "name": "attention", "mask": mask}


class Transformer(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([Attention(rngs) for _ in range(2)])
        self.rngs = nnx.Rngs(dropout=1)

    def __call__(self, x, train=True):
        state = {"x": x}
        for i, layer in enumerate(self.layers):
            mask = None if i else jnp.asarray([[1.0, 0.0, 1.0, 1.0]])
            h, state = layer(state, mask, not train, rngs=self.rngs)
            assert state["name"] == "attention" and (state["mask"] is None) == bool(i)
        return h + state["x"]


@pytest.mark.parametrize("train", [True, False])
def test_tuples_dicts_flags_and_rngs_by_keyword(vectors, train):
    owners = {f"layers/{i}": [f"layers/{i}"] for i in (0, 1)}
    check_attached(
        Transformer,
        vectors,
        owners,
        layers=Attention,
        feature=lambda path, output: output[0],
        options={"train": train},
    )


class Lora(nnx.Variable):
    pass


class Adapted(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.down = Lora(rngs.params.normal((4, 2)))
        self.up = Lora(rngs.params.normal((2, 4)))

    def __call__(self, x):
        return jnp.tanh(self.linear(x) + x @ self.down[...] @ self.up[...])


def test_a_second_differentiated_type_of_variable(vectors):
    owners = {f"layers/{i}": [f"layers/{i}/linear"] for i in (0, 1)}

    def make():
        rngs = nnx.Rngs(0)
        return nnx.Sequential(Adapted(rngs), Adapted(rngs))

    check_attached(make, vectors, owners, layers=Adapted, wrt=nnx.Any(nnx.Param, Lora))
    low_rank = nnx.Sequential(
        *[nnx.LoRALinear(4, 4, lora_rank=2, rngs=nnx.Rngs(i, lora=i)) for i in (0, 1)]
    )
    for layer in low_rank.layers:
        layer.lora.lora_b[...] = jnp.ones_like(layer.lora.lora_b[...])
    owners = {f"layers/{i}": [f"layers/{i}"] for i in (0, 1)}
    make = lambda: nnx.clone(low_rank)  # noqa: E731
    check_attached(make, vectors, owners, layers=nnx.LoRALinear)


class Shared(nnx.Module):
    def __init__(self):
        self.block = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        self.again = self.block
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        for _ in range(2):
            x = self.norm(jnp.tanh(self.block(x)))
        return self.again(x)


def test_a_module_that_is_called_again(vectors):
    linear, norm = (
        collab_nnx.capture(Shared(), vectors, layers=kind).paths
        for kind in (nnx.Linear, nnx.BatchNorm)
    )
    assert linear in (("block", "block#2", "block#3"), ("again", "again#2", "again#3"))
    assert norm == ("norm", "norm#2")
    owner = [linear[0]]
    check_attached(Shared, vectors, dict.fromkeys(linear, owner), layers=nnx.Linear)


class Auxiliary(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x, record):
        h = self.linear(x)
        self.sow(nnx.Intermediate, "balance", (h**2).mean())
        record["h"] = h
        record["all"].append(h.mean())
        return jnp.tanh(h)


class Recording(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([Auxiliary(rngs) for _ in range(2)])

    def __call__(self, x):
        record = {"all": []}
        for layer in self.layers:
            x = layer(x, record)
        return x, record


@pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")
def test_a_layer_that_writes_into_its_arguments(vectors):
    owners = {f"layers/{i}": [f"layers/{i}"] for i in (0, 1)}
    check_attached(Recording, vectors, owners, layers=Auxiliary)


def test_a_loss_that_a_layer_sows_keeps_its_gradient(vectors):
    def gradient(selection):
        def call(model, x):
            return collab_nnx.capture(model, x, **selection) if selection else model(x)

        def loss(model, x):
            _, sown = nnx.capture(call, nnx.Intermediate)(model, x)
            return sum(sown["layers"][i]["balance"].get_value()[0] for i in (0, 1))

        return nnx.jit(nnx.grad(loss, argnums=(0, 1)))(Recording(), vectors)

    (plain, plain_x), (attached, attached_x) = gradient({}), gradient({"layers": Auxiliary})
    equal(nnx.as_pure(plain), nnx.as_pure(attached))
    np.testing.assert_array_equal(plain_x, attached_x)
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(nnx.as_pure(plain)))


def test_bfloat16(vectors):
    def make():
        rngs = nnx.Rngs(0)
        kinds = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16, "rngs": rngs}
        return nnx.Sequential(nnx.Linear(4, 4, **kinds), jnp.tanh, nnx.Linear(4, 4, **kinds))

    owners = {"layers/0": ["layers/0"], "layers/2": ["layers/2"]}
    features = check_attached(
        make, jnp.asarray(vectors, jnp.bfloat16), owners, layers=nnx.Linear, reference=False
    )
    assert {h.dtype for h in features} == {jnp.dtype(jnp.bfloat16)}


def test_state_advances_once_and_is_returned(x):
    plain, attached = ConvNet(), ConvNet()
    for _ in range(2):
        expected = plain(x)
        captured = collab_nnx.capture(attached, x, layers=Block)
        np.testing.assert_array_equal(captured.outputs, expected)
    equal(arrays(nnx.state(attached)), arrays(nnx.state(plain)))
    equal(captured.variables, nnx.as_pure(nnx.state(plain, nnx.BatchStat)))


def test_a_closed_over_model_in_inference(x):
    model = ConvNet()
    model.eval()
    plain = jax.jit(lambda x: model(x))(x)
    outputs, features, _, paths = jax.jit(lambda x: collab_nnx.capture(model, x, layers=Block))(x)
    np.testing.assert_array_equal(outputs, plain)
    assert paths == ("blocks/0", "blocks/1") and len(features) == 2
