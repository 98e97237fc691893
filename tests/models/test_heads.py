"""Local heads and projections on captured features of a model of the user's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from collab_jax import losses
from collab_jax.models import LocalHeads, Projections

SHAPES = {"map": (2, 9, 7, 12), "wide map": (2, 3, 3, 1024), "tokens": (2, 50, 6), "vector": (2, 5)}


@pytest.fixture(scope="module")
def features():
    generator = np.random.default_rng(0)
    return [generator.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]


def test_heads_take_features_of_any_shape(features):
    heads = LocalHeads(num_classes=3, width=8, pool=4)
    variables = jax.jit(heads.init)(jax.random.key(1), features)
    assert set(variables) == {"params"}

    def loss(features):
        logits = heads.apply(variables, features)
        assert logits.shape == (4, 2, 3)
        return (logits**2).sum()

    of_features = jax.jit(jax.grad(loss))(features)
    assert all((np.asarray(leaf) != 0).any() for leaf in of_features)


def test_width_is_bounded_whatever_the_layer(features):
    for heads in (LocalHeads(num_classes=3, width=8, pool=4), Projections(width=8)):
        params = jax.eval_shape(heads.init, jax.random.key(1), features)["params"]
        for shape, (name, layer) in zip(
            [shape for shape in SHAPES.values() for _ in range(len(params) // len(SHAPES))],
            sorted(params.items()),
            strict=True,
        ):
            if name.endswith("_fc"):
                assert layer["kernel"].shape[0] <= 4 * 4 * 8 and layer["kernel"].shape[1] == 3
            else:
                assert layer["kernel"].shape == (3, 3, shape[-1], 8)


def test_projections_of_averaged_maps():
    maps = np.random.default_rng(0).normal(size=(2, 9, 6, 3)).astype(np.float32)
    rows = [maps[:, i : i + 2].mean(1) for i in range(0, 9, 2)]  # the last of one row alone
    averaged = np.stack(rows, 1).reshape(2, 5, 3, 2, 3).mean(3)
    whole, pooled = Projections(width=5), Projections(width=5, pool=5)
    variables = whole.init(jax.random.key(0), [maps])
    (expected,) = whole.apply(variables, [averaged])
    (found,) = pooled.apply(variables, [maps])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_projections_of_vectors_and_maps_enter_the_pull_push_loss(features):
    projections = Projections(width=4)

    @jax.jit
    def project(key):
        projected, _ = projections.init_with_output(key, features)
        values = losses.pull_push_loss(
            projected,
            features[0],
            np.array([0, 1]),
            pull=np.linspace(0.0, 1.0, 4),
            push=np.linspace(1.0, 0.0, 4),
            num_classes=3,
        )
        return projected, values

    projected, values = project(jax.random.key(1))
    assert [x.shape for x in projected] == [(2, 9, 7, 4), (2, 3, 3, 4), (2, 1, 50, 4), (2, 1, 1, 4)]
    assert values.shape == (4,) and np.isfinite(np.asarray(values)).all()


def test_through_the_bridge_heads_are_an_nnx_module(features):
    linen_heads, features = LocalHeads(num_classes=3, width=8), features[2:]
    heads = nnx.bridge.ToNNX(linen_heads, rngs=nnx.Rngs(2)).lazy_init(features)
    params = nnx.to_pure_dict(nnx.state(heads, nnx.Param))
    assert set(params) == {f"layer{i}_{part}" for i in (1, 2) for part in ("conv", "fc")}

    @nnx.jit
    def loss(heads):
        return nnx.value_and_grad(lambda heads: (heads(features) ** 2).sum())(heads)

    value, gradient = loss(heads)
    expected = (jax.jit(linen_heads.apply)({"params": params}, features) ** 2).sum()
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.misuse
@pytest.mark.parametrize("heads", [LocalHeads(num_classes=3), Projections()])
def test_unfit_features_are_named(heads):
    with pytest.raises(ValueError, match=r"features\[1\] must be maps .* got shape \(2,\)"):
        heads.init(jax.random.key(0), [np.ones((2, 3)), np.ones(2)])
    with pytest.raises(ValueError, match="at least one layer"):
        heads.init(jax.random.key(0), [])


@pytest.mark.parametrize("size", [(9, 7), (4, 4), (5, 1), (14, 28)])
def test_pooling_windows_cover_every_pixel(size):
    from collab_jax.models.heads import window
    from collab_jax.models.pooling import covering_average_pool, covering_max_pool

    random = np.random.default_rng(0)
    x = random.normal(size=(2, *size, 3)).astype(np.float32)
    rows, columns = window(size, 4)
    largest, mean = (
        np.stack(
            [
                [
                    reduce(x[:, i : i + rows, j : j + columns], axis=(1, 2))
                    for j in range(0, size[1], columns)
                ]
                for i in range(0, size[0], rows)
            ]
        )
        for reduce in (np.max, np.mean)
    )
    assert max(largest.shape[:2]) <= 4
    np.testing.assert_array_equal(
        covering_max_pool(jnp.asarray(x), (rows, columns)), np.moveaxis(largest, 2, 0)
    )
    np.testing.assert_allclose(
        covering_average_pool(jnp.asarray(x), (rows, columns)),
        np.moveaxis(mean, 2, 0),
        rtol=1e-5,
        atol=1e-6,
    )
