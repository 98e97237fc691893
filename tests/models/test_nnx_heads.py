"""The NNX heads and projections compute what the Linen ones do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from collab_jax.models import heads, nnx_heads


@pytest.fixture
def features():
    generator = np.random.default_rng(0)
    shapes = (3, 9, 7, 4), (3, 5, 6), (3, 8), (3, 2, 2, 5)
    return [generator.normal(size=shape).astype(np.float32) for shape in shapes]


def copied(params, numbers, parts):
    """Puts a Linen tree's layers into NNX lists of convolutions and the like."""
    for name, modules in parts.items():
        for number, module in zip(numbers, modules, strict=True):
            values = params[name.format(number)]
            assert {key: value.shape for key, value in values.items()} == {
                "kernel": module.kernel.shape,
                "bias": module.bias.shape,
            }
            module.kernel[...], module.bias[...] = values["kernel"], values["bias"]


def test_heads_with_the_same_weights_give_the_same_logits(features):
    linen = heads.LocalHeads(7, width=6, pool=4)
    params = linen.init(jax.random.key(1), features)["params"]
    made = nnx_heads.LocalHeads(features, 7, width=6, pool=4, rngs=nnx.Rngs(0))
    parts = {"layer{}_conv": made.convolutions, "layer{}_fc": made.classifiers}
    copied(params, range(1, 5), parts)
    expected = jax.jit(linen.apply)({"params": params}, features)
    logits = nnx.jit(lambda made, features: made(features))(made, features)
    assert logits.shape == (4, 3, 7) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pool", [0, 2])
def test_projections_with_the_same_weights_give_the_same_maps(features, pool):
    linen = heads.Projections(width=6, pool=pool)
    params = linen.init(jax.random.key(1), features)["params"]
    made = nnx_heads.Projections(features, width=6, pool=pool, rngs=nnx.Rngs(0))
    copied(params, range(1, 5), {"layer{}": made.convolutions})
    expected = jax.jit(linen.apply)({"params": params}, features)
    maps = nnx.jit(lambda made, features: made(features))(made, features)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), maps, expected
    )


def test_initial_values_lie_within_the_bounds_of_their_inputs(features):
    shapes = jax.eval_shape(lambda: features)
    made = nnx_heads.LocalHeads(shapes, 50, width=16, rngs=nnx.Rngs(0))
    layers = [*made.convolutions, *made.classifiers]
    for layer in layers:
        bound = np.prod(layer.kernel.shape[:-1]) ** -0.5
        for value in (layer.kernel[...], layer.bias[...]):
            assert 0.5 * bound < np.abs(value).max() <= bound
    assert made.classifiers[0].kernel.shape == (3 * 4 * 16, 50)


@pytest.mark.misuse
def test_a_wrong_number_or_rank_of_features_is_refused(features):
    with pytest.raises(ValueError, match=r"at least one layer"):
        nnx_heads.LocalHeads([], 7, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"features\[0\] must be maps .* got shape \(3,\)"):
        nnx_heads.Projections([np.zeros(3)], rngs=nnx.Rngs(0))
    made = nnx_heads.Projections(features, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"longer|shorter"):
        made(features[:-1])


def test_bfloat16_computes_in_it_and_gives_float32_logits(features):
    made = nnx_heads.LocalHeads(features, 7, width=6, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert made(features).dtype == jnp.float32
    maps = nnx_heads.Projections(features, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(features)
    assert {x.dtype for x in maps} == {jnp.dtype(jnp.bfloat16)}
