"""The CPU's form of convolution and pooling against XLA's own."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from collab_jax.models.convolution import conv_general_dilated
from collab_jax.models.pooling import max_pool

NHWC = ("NHWC", "HWIO", "NHWC")
# Height, width, kernel size, stride, padding, channels, filters.
CASES = [
    (1, 1, 3, 1, 1, 3, 5),
    (2, 2, 3, 1, 1, 3, 5),
    (2, 2, 3, 2, 1, 3, 5),
    (1, 4, 3, 1, 1, 2, 1),
    (2, 1, 5, 1, 2, 2, 3),
    (2, 2, 2, 1, "SAME_LOWER", 3, 2),
    (2, 2, 2, 1, "VALID", 3, 2),
    (2, 2, 5, 1, ((0, 5), (2, 3)), 2, 3),
    (2, 2, 1, 2, 0, 3, 4),
    (16, 16, 3, 1, 1, 3, 5),
]


def pair_of_functions(size, stride, padding):
    padding = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    settings = {"window_strides": (stride, stride), "padding": padding, "dimension_numbers": NHWC}
    return (
        partial(conv_general_dilated, **settings),
        partial(lax.conv_general_dilated, **settings),
    )


def arrays(*shapes, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_derivatives_are_those_of_lax(case, dtype):
    height, width, size, stride, padding, channels, filters = case
    ours, reference = pair_of_functions(size, stride, padding)
    with jax.enable_x64(dtype == np.float64):
        shapes = (4, height, width, channels), (size, size, channels, filters)
        x, kernel, dx, dkernel = arrays(*shapes, *shapes, dtype=dtype)

        def both_modes(function, x, kernel, dx, dkernel):
            y, pullback = jax.vjp(function, x, kernel)
            return y, jax.jvp(function, (x, kernel), (dx, dkernel)), pullback(jnp.cos(y))

        found = jax.jit(partial(both_modes, ours))(x, kernel, dx, dkernel)
        expected = jax.jit(partial(both_modes, reference))(x, kernel, dx, dkernel)
        tolerance = 1e-11 if dtype == np.float64 else 1e-4
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert a.dtype == b.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(("side", "size"), [(2, 3), (2, 1)])
def test_vmap_and_second_derivatives(side, size):
    ours, reference = pair_of_functions(size, 1, size // 2)
    x, kernel = arrays((3, 2, side, side, 2), (size, size, 2, 2), dtype=np.float32)

    def curvature(function):
        def loss(kernel, x):
            return (function(x, kernel) ** 2).sum()

        def along(kernel, x):
            return jax.jvp(lambda k: jax.grad(loss)(k, x), (kernel,), (kernel,))[1]

        return jax.jit(jax.vmap(along, in_axes=(None, 0)))(kernel, x)

    np.testing.assert_allclose(curvature(ours), curvature(reference), rtol=1e-3, atol=1e-2)


def test_cpu_programs_hold_products_where_maps_are_small_and_others_a_convolution():
    ours, _ = pair_of_functions(3, 1, 1)
    x, kernel = arrays((4, 2, 2, 3), (3, 3, 3, 5), dtype=np.float32)
    traced = jax.jit(ours).trace(x, kernel)
    cpu = traced.lower(lowering_platforms=("cpu",)).as_text()
    cuda = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.dot_general" in cpu and "stablehlo.convolution" not in cpu
    assert "stablehlo.convolution" in cuda and "stablehlo.dot_general" not in cuda


def test_the_program_for_a_gpu_is_that_of_lax():
    shapes = (4, 2, 2, 3), (3, 3, 3, 5)
    x, kernel = arrays(*shapes, dtype=np.float32)

    def counts(function):
        def loss(x, kernel):
            return (function(x, kernel) ** 2).sum()

        traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(x, kernel)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")

    assert [counts(function) for function in pair_of_functions(3, 1, 1)] == [(3, 0)] * 2


def test_what_the_cpu_form_does_not_cover_is_left_to_lax():
    x, kernel = arrays((2, 2, 2, 4), (3, 3, 2, 6), dtype=np.float32)
    settings = {
        "window_strides": (1, 1),
        "padding": ((2, 2), (2, 2)),
        "rhs_dilation": (2, 2),
        "dimension_numbers": NHWC,
        "feature_group_count": 2,
    }
    np.testing.assert_array_equal(
        conv_general_dilated(x, kernel, **settings),
        lax.conv_general_dilated(x, kernel, **settings),
    )


def test_in_a_flax_layer():
    (x,) = arrays((3, 2, 2, 4), dtype=np.float32)
    layer = nn.Conv(6, (3, 3), conv_general_dilated=conv_general_dilated)
    variables = layer.init(jax.random.key(0), x)
    expected = nn.Conv(6, (3, 3)).apply(variables, x)
    np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 8, 6, 3), (2, 2)),
        ((2, 7, 9, 1), (2, 2)),
        ((2, 7, 7, 2), (7, 3)),
        ((1, 1, 4, 2), (1, 2)),
    ],
)
def test_pooling_and_its_gradient_are_those_of_flax(shape, window):
    # Small integers, so that windows hold ties.
    x = jnp.asarray(np.random.default_rng(0).integers(-2, 3, shape), jnp.float32)

    def value_and_derivatives(pool, x):
        y, pullback = jax.vjp(pool, x)
        cotangent = 1 + jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape)
        return y, pullback(cotangent), jax.jvp(pool, (x,), (2 * x,))

    def reference(x):
        return nn.max_pool(x, window, strides=window)

    def ours(x):
        return max_pool(x, window)

    y, gradient, (_, tangent) = jax.jit(partial(value_and_derivatives, ours))(x)
    expected, expected_gradient, _ = jax.jit(partial(value_and_derivatives, reference))(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(gradient[0], expected_gradient[0])
    np.testing.assert_array_equal(tangent, 2 * expected)


def test_pooling_shows_what_is_not_a_number():
    x = jnp.zeros((1, 2, 4, 1)).at[0, 1, 2, 0].set(jnp.nan)
    assert jnp.isnan(max_pool(x, (2, 2))).reshape(-1).tolist() == [False, True]
