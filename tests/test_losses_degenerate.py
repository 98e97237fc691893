"""Finite values and gradients wherever hypothesis looks for the contrary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collab_jax import losses

BATCH, CLASSES = 4, 3
MAP_SHAPES = [(4, 3, 3, 4), (4, 2, 2, 1), (4, 1, 1, 3), (1, 2, 2, 3), (4, 1, 1, 1)]
KERNEL_SHAPES = [(3, 3, 2, 4), (1, 1, 3, 1), (1, 1, 1, 4), (1, 1, 1, 1), (1, 1, 2, 2)]

# Each run of a jitted function takes well under a millisecond, the first of a shape a second.
search = settings(max_examples=60, deadline=None, derandomize=True)
floats = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
few = st.sampled_from([0.0, 1.0, -1.0, 1.0000001, 1e4, -1e4, 1e-4, 1e-19, 1e-30, 0.1, 3.3333333])


@st.composite
def arrays(draw, shape):
    """Arrays of arbitrary, few or equal numbers, with rows, columns and pixels made alike."""
    size = int(np.prod(shape))
    numbers = draw(
        st.one_of(
            st.lists(floats, min_size=size, max_size=size),
            st.lists(few, min_size=size, max_size=size),
            few.map(lambda value: [value] * size),
        )
    )
    x = np.array(numbers, np.float32).reshape(shape)
    for axis in range(len(shape)):
        if draw(st.booleans()):
            first = np.take(x, [0], axis=axis)
            alike = draw(st.lists(st.booleans(), min_size=shape[axis], max_size=shape[axis]))
            broadcast = [1] * len(shape)
            broadcast[axis] = shape[axis]
            x = np.where(np.reshape(alike, broadcast), first, x)
    return x * np.float32(draw(st.sampled_from([1.0, 1.0, 0.0, 1e-3, 1e-10, 1e-20, 1e-35])))


@st.composite
def labels(draw, batch=BATCH):
    if draw(st.booleans()):
        return np.full(batch, draw(st.integers(0, CLASSES - 1)), np.int32)
    numbers = st.integers(0, CLASSES - 1)
    return np.array(draw(st.lists(numbers, min_size=batch, max_size=batch)), np.int32)


def with_gradient(loss):
    """Value, gradient and a second derivative of a scalar loss, compiled once per shape."""

    def evaluate(x, *rest):
        value, gradient = jax.value_and_grad(loss)(x, *rest)
        tangent = jnp.ones_like(x)
        _, slope = jax.jvp(lambda x: loss(x, *rest), (x,), (tangent,))
        return value, gradient, slope

    return jax.jit(evaluate)


def assert_finite(results, x):
    for name, result in zip(("value", "gradient", "slope"), results, strict=True):
        assert np.isfinite(result).all(), f"{name} {result} at {x.tolist()}"


hard = with_gradient(lambda z, y: losses.hard_loss(z, y).sum())
soft = with_gradient(
    lambda z, y: losses.soft_loss(z, jax.nn.one_hot(y, CLASSES), temperature=2.0).sum()
)
collaborative = with_gradient(lambda z, y: losses.collaborative_loss(z, y).sum())
unstopped = with_gradient(lambda z, y: losses.collaborative_loss(z, y, stop_gradient=False).sum())
intermediate = with_gradient(lambda z, y: losses.intermediate_loss(z, y).sum())
under_output = with_gradient(
    lambda z, y: losses.intermediate_loss(z[1:], y, output_logits=z[0], stop_gradient=False).sum()
)
kernel = with_gradient(losses.kernel_loss)


@search
@given(arrays((BATCH, CLASSES)), labels())
def test_hard_and_soft_loss(z, y):
    assert_finite(hard(z, y), z)
    assert_finite(soft(z, y), z)


@pytest.mark.parametrize("branches", [2, 4])
def test_collaborative_loss(branches):
    @search
    @given(arrays((branches, BATCH, CLASSES)), labels())
    def finite(z, y):
        assert_finite(collaborative(z, y), z)
        assert_finite(unstopped(z, y), z)

    finite()


@pytest.mark.parametrize("layers, batch", [(1, BATCH), (3, BATCH), (2, 1)])
def test_intermediate_loss(layers, batch):
    @search
    @given(arrays((layers + 1, batch, CLASSES)), labels(batch))
    def finite(z, y):
        assert_finite(intermediate(z[:layers], y), z)
        assert_finite(under_output(z, y), z)

    finite()


@pytest.mark.parametrize("center", ["features", "batch", "none"])
@pytest.mark.parametrize(
    "shape, representation",
    [
        *((shape, "std") for shape in MAP_SHAPES),
        *((shape, "flatten") for shape in [*MAP_SHAPES, (4, 3), (1, 3), (4, 1)]),
    ],
)
def test_similarity_matrix(shape, representation, center):
    weights = np.random.default_rng(0).normal(size=(shape[0], shape[0])).astype(np.float32)
    options = dict(representation=representation, center=center)
    weighted = with_gradient(lambda x: (weights * losses.similarity_matrix(x, **options)).sum())

    @settings(search, max_examples=30)
    @given(arrays(shape))
    def finite(x):
        assert_finite(weighted(x), x)

    finite()


@pytest.mark.parametrize("shape", MAP_SHAPES)
def test_pull_push_loss(shape):
    def loss(features, inputs, y):
        flat = features.reshape(len(features), -1)
        weights = dict(pull=[1.0, 0.5], push=[0.5, 1.0], num_classes=CLASSES)
        return losses.pull_push_loss([features, flat], inputs, y, **weights).sum()

    pull_push = with_gradient(loss)

    @settings(search, max_examples=30)
    @given(arrays(shape), arrays((shape[0], 2, 2, 3)), labels(shape[0]))
    def finite(features, inputs, y):
        assert_finite(pull_push(features, inputs, y), features)
        # Features that are the inputs: one of the two distances is exactly zero.
        assert_finite(pull_push(features, features, y), features)

    finite()


@pytest.mark.parametrize("shape", KERNEL_SHAPES)
def test_kernel_loss(shape):
    @search
    @given(arrays(shape))
    def finite(weights):
        value, gradient, slope = kernel(weights)
        assert_finite((value, gradient, slope), weights)
        filters = shape[-1]
        assert 0 <= value <= np.sqrt(filters * (filters - 1)) * (1 + 1e-5)

    finite()


@pytest.mark.parametrize("big", [1e4, -1e4])
def test_one_class_far_from_the_rest(big):
    logits = np.zeros((2, CLASSES, CLASSES), np.float32) + big * np.eye(CLASSES, dtype=np.float32)
    y = np.arange(CLASSES)
    value, gradient, _ = collaborative(logits, y)
    assert_finite((value, gradient, 0.0), logits)
    # Beaten by 1e4, a class costs that and log 2 for the two others; the soft targets cost log 2.
    expected = 0.0 if big > 0 else CLASSES * (0.5 * (1e4 + np.log(2)) + 0.5 * np.log(2))
    assert value == pytest.approx(expected, rel=1e-6)


def test_a_dead_filter_counts_for_nothing_and_is_left_alone():
    weights = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
    weights[..., 1] = 0.3
    value, gradient, _ = kernel(weights)
    alive = kernel(np.delete(weights, 1, axis=-1))
    assert value == pytest.approx(float(alive[0]), rel=1e-6)
    assert (gradient[..., 1] == 0).all()
    np.testing.assert_allclose(np.delete(gradient, 1, axis=-1), alive[1], atol=1e-6)


def test_a_dead_channel_has_deviation_zero_and_no_gradient():
    x = np.random.default_rng(0).normal(size=(4, 5, 5, 3)).astype(np.float32)
    x[..., 1] = 7.7

    def loss(x):
        return (losses.similarity_matrix(x) ** 2).sum()

    gradient = jax.jit(jax.grad(loss))(x)
    assert (gradient[..., 1] == 0).all()
    assert (np.abs(gradient[..., 0]).max(axis=(1, 2)) > 0).all()


def test_grey_images_in_three_channels_have_no_direction():
    grey = np.random.default_rng(0).uniform(size=(4, 9, 9, 1)).astype(np.float32)
    similarity = jax.jit(losses.similarity_matrix)
    assert (similarity(np.repeat(grey, 3, axis=3)) == 0).all()
    assert (jnp.diagonal(similarity(grey)) == 1).all()


@pytest.mark.parametrize("scale", [1e-16, 1e-8, 1e8, 1e15, 1e30])
def test_losses_of_similarity_do_not_depend_on_scale(scale):
    x = np.random.default_rng(0).normal(size=(5, 3, 3, 4)).astype(np.float32)
    far = x * np.float32(scale)
    value, gradient, _ = kernel(x)
    scaled_value, scaled_gradient, _ = kernel(far)
    np.testing.assert_allclose(scaled_value, value, rtol=1e-6)
    np.testing.assert_allclose(scaled_gradient * np.float32(scale), gradient, atol=1e-5)
    similarity = jax.jit(losses.similarity_matrix)
    flat, far_flat = x.reshape(5, -1), far.reshape(5, -1)
    np.testing.assert_allclose(similarity(far_flat), similarity(flat), atol=2e-6)
    if scale < 1e18:  # a variance is a square: its maps end at the root of what float32 holds
        np.testing.assert_allclose(similarity(far), similarity(x), atol=2e-6)


@pytest.mark.parametrize("spread", [1e-30, 2e-19, 2e-18, 1e-12])
def test_tiny_spreads_have_finite_derivatives_to_second_order(spread):
    x = np.random.default_rng(0).uniform(size=(4, 6)).astype(np.float32) * np.float32(spread)
    weights = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)

    def loss(x):
        return (weights * losses.similarity_matrix(x)).sum()

    gradient = jax.grad(loss)
    hessian_vector = jax.jit(lambda x: jax.jvp(gradient, (x,), (jnp.eye(4, 6),))[1])
    assert np.isfinite(jax.jit(gradient)(x)).all()
    assert np.isfinite(hessian_vector(x)).all()


def test_nan_is_not_hidden():
    x = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
    x[1, 0, 0, 2] = np.nan
    assert np.isnan(losses.kernel_loss(x))
    assert np.isnan(losses.similarity_matrix(x)[0, 1])
    assert np.isnan(losses.hard_loss(x[:, 0, 0], np.array([0, 1, 2]))).tolist() == [
        False,
        True,
        False,
    ]
