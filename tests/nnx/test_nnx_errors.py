"""Every way in which a capture of an NNX model can be wrong, and what the message says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from collab_jax import nnx as collab_nnx
from collab_jax.isolation import CaptureError


class Block(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.embed = nnx.Embed(5, 4, rngs=rngs)

    def __call__(self, x, fail=False):
        if fail:
            raise RuntimeError("as asked")
        return {"h": self.linear(x), "logits": self.embed.attend(x)}


class Model(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.unused = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x, fail=False):
        for block in self.blocks:
            x = block(x, fail)["h"]
        return x


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def x():
    return np.ones((2, 4), np.float32)


def output(path, output):
    return output["h"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layers": "block/*"}, r"layers='block/\*' selects none .* did you mean 'blocks/[01]'\?"),
        ({"layers": nnx.Conv}, r"layers=Conv selects none of .*there are 'blocks', 'blocks/0', "),
        pytest.param({"layers": 3}, r"layers must be a module class", marks=pytest.mark.misuse),
        (
            {"layers": ["blocks/*", "blocks/1/linear"]},
            r"'blocks/1/linear' and 'blocks/1', which it",
        ),
        ({"layers": "blocks"}, r"selects 'blocks' \(List\), .* not by __call__"),
        ({"layers": Block}, r"'blocks/0' \(Block\) returns \{h: float32\[2, 4\], .*feature="),
        (
            {"layers": Block, "feature": lambda path, output: output},
            r"feature gave \{h: .* for 'blocks/0' \(Block\)",
        ),
        ({"layers": nnx.Linear}, r"layers=Linear selects 'unused', which the model did not call"),
        (
            {"layers": nnx.Embed},
            r"selects 'blocks/0/embed' \(Embed\), which is used by attend and not by __call__",
        ),
        ({"layers": "**/linear", "then": "norm"}, r"then='norm' selects none"),
        ({"layers": "**/linear", "then": ""}, r"then: the glob '' has an empty segment"),
        ({"then": "**/linear"}, r"then, feature and joint=False need layers"),
        ({"joint": False}, r"then, feature and joint=False need layers"),
        ({}, r"Model sows nothing named 'local_features'.*layers=nnx\.Conv.*self\.sow\("),
    ],
)
def test_the_message_says_what_is_wrong(model, x, options, message):
    definition = nnx.graphdef(model)
    with pytest.raises(CaptureError, match=message):
        collab_nnx.capture(model, x, **options)
    assert nnx.graphdef(model) == definition


def test_a_module_that_is_called_inside_of_another(x):
    class Caller(nnx.Module):
        def __init__(self, other):
            self.other = nnx.static(lambda x: other(x))

        def __call__(self, x):
            return self.other(x)

    class Pair(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
            self.caller = Caller(self.linear)

        def __call__(self, x):
            return self.caller(self.linear(x))

    with pytest.raises(CaptureError, match=r"selects 'linear' and 'caller', which it runs inside"):
        collab_nnx.capture(Pair(), x, layers=["linear", "caller"])


def test_a_model_that_raises_is_left_as_it_was(model, x):
    definition = nnx.graphdef(model)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="as asked"):
            collab_nnx.capture(model, x, layers=Block, feature=output, fail=True)
        assert nnx.graphdef(model) == definition
        assert type(model.blocks[0]) is Block
    assert collab_nnx.capture(model, x, layers=Block, feature=output).paths == (
        "blocks/0",
        "blocks/1",
    )


def test_a_transform_that_hands_out_no_features_says_which_line_to_add(x):
    class Scanned(nnx.Module):
        def __init__(self, axes):
            @nnx.split_rngs(splits=2)
            @nnx.vmap(in_axes=0, out_axes=0)
            def make(rngs):
                return nnx.Linear(4, 4, rngs=rngs)

            self.layers = make(nnx.Rngs(0))
            self.axes = nnx.static(axes)

        def __call__(self, x):
            axes = nnx.StateAxes(dict(self.axes))
            run = nnx.scan(lambda layer, x: layer(x), in_axes=(axes, nnx.Carry), out_axes=nnx.Carry)
            return run(self.layers, x)

    model = Scanned(((nnx.Param, 0),))
    with pytest.raises(ValueError, match="No axis found") as raised:
        collab_nnx.capture(model, x, layers="layers")
    assert any("nnx.StateAxes({nnx.Intermediate: 0" in note for note in raised.value.__notes__)
    model = Scanned(((nnx.Param, 0), (..., None)))
    with pytest.raises(CaptureError, match=r"'layers' runs inside a transform.*Intermediate: 0"):
        collab_nnx.capture(model, x, layers="layers")
    model = Scanned(((nnx.Param, 0), (nnx.Intermediate, 0)))
    assert collab_nnx.capture(model, x, layers="layers").paths == ("layers[0]", "layers[1]")


@pytest.mark.misuse
def test_what_is_no_module(x):
    with pytest.raises(TypeError, match=r"model must be an nnx\.Module, got"):
        collab_nnx.capture(jnp.tanh, x, layers=Block)
    with pytest.raises(TypeError, match=r"layer must be an nnx\.Module with a __call__, got"):
        collab_nnx.isolate(jnp.tanh, x)
    with pytest.raises(TypeError, match=r"layer must be an nnx\.Module with a __call__, got"):
        collab_nnx.isolate(nnx.List([]), x)


def test_second_derivatives_are_refused(model, x):
    def loss(x):
        captured = collab_nnx.capture(model, x, layers=Block, feature=output)
        return (captured.outputs**3).sum() + (captured.features[1] ** 2).sum()

    with pytest.raises(TypeError, match=r"differentiated once; joint=False"):
        jax.grad(lambda x: jax.grad(loss)(x).sum())(jnp.asarray(x))


def test_what_should_join_and_receives_no_layers_output_is_told():
    class Net(nnx.Module):
        def __init__(self):
            self.conv = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
            self.norm = nnx.LayerNorm(4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.norm(nnx.relu(self.conv(x)))

    with pytest.raises(CaptureError, match=r"then=LayerNorm selects 'norm', but no such module"):
        collab_nnx.capture(Net(), jnp.ones((2, 4)), layers=nnx.Linear, then=nnx.LayerNorm)
