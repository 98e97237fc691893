"""Capture under NNX's transforms: remat, scan, vmap, and a jit inside of the model."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from nnx_checks import Block, check_attached

from collab_jax import nnx as collab_nnx


class Remat(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])

    def __call__(self, x):
        for block in self.blocks:
            x = nnx.remat(lambda block, x: block(x))(block, x)
        return x


def test_rematerialised_blocks(x):
    owners = {f"blocks/{i}": [f"blocks/{i}"] for i in (0, 1)}
    check_attached(Remat, x, owners, layers=Block)


class Scanned(nnx.Module):
    def __init__(self, depth=3):
        self.stem = nnx.Linear(4, 4, rngs=nnx.Rngs(1))

        @nnx.split_rngs(splits=depth)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs):
            return Dense(rngs)

        self.layers = make(nnx.Rngs(0))

    def __call__(self, x):
        x = self.stem(x)

        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def forward(layer, x):
            return layer(x)

        return forward(self.layers, x)


class Dense(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        return self.dropout(jnp.tanh(self.norm(self.linear(x))))


def test_a_scan_gives_a_feature_for_each_of_its_layers(vectors):
    owners = {f"layers[{i}]": ["layers"] for i in range(3)}
    check_attached(Scanned, vectors, {"stem": ["stem"], **owners}, layers=("stem", Dense))
    owners = {f"layers/linear[{i}]": ["layers/linear"] for i in range(3)}
    check_attached(Scanned, vectors, owners, layers="layers/linear")
    owners = {f"layers/norm[{i}]": ["layers/linear", "layers/norm"] for i in range(3)}
    check_attached(Scanned, vectors, owners, layers="layers/linear", then=nnx.BatchNorm)


class Ensemble(nnx.Module):
    def __init__(self):
        @nnx.split_rngs(splits=2)
        @nnx.vmap(in_axes=0, out_axes=0)
        def make(rngs):
            return Dense(rngs)

        self.members = make(nnx.Rngs(0))

    def __call__(self, x):
        return nnx.vmap(lambda member, x: member(x), in_axes=(0, None))(self.members, x)


def test_vmap_over_parameters_gives_a_feature_for_each_member(vectors):
    owners = {f"members[{i}]": ["members"] for i in range(2)}
    # XLA sums the members' parts of the input's gradient in another order.
    check_attached(Ensemble, vectors, owners, rtol=1e-5, layers=Dense)


class ByExample(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        axes = nnx.StateAxes({nnx.Intermediate: 0, ...: None})
        return nnx.vmap(lambda linear, x: jnp.tanh(linear(x)), in_axes=(axes, 0))(self.linear, x)


def test_vmap_over_examples_gives_one_feature(vectors):
    (feature,) = check_attached(ByExample, vectors, {"linear": ["linear"]}, layers="linear")
    assert feature.shape == vectors.shape


class Jitted(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return _jitted(self.linear, x)


@nnx.jit
def _jitted(linear, x):
    return jnp.tanh(linear(x))


def test_a_model_that_is_jitted_inside_is_traced_anew(vectors):
    model = Jitted()
    plain = model(vectors)
    for _ in range(2):
        captured = collab_nnx.capture(model, vectors, layers="linear")
        assert captured.paths == ("linear",)
        np.testing.assert_array_equal(captured.outputs, plain)
    np.testing.assert_array_equal(model(vectors), plain)
