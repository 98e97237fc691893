"""Values against float64 NumPy, and against numbers worked out by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import losses_reference as reference
import numpy as np
import pytest
from flax import nnx

from collab_jax import losses

pytestmark = pytest.mark.smoke

CASES = 100
# (branches or layers, batch, classes); (batch, pixels a side, channels, classes); (inputs, outputs)
LOGITS = [(2, 1, 2), (4, 32, 10), (8, 16, 100)]
MAPS = [(4, 8, 4, 3), (16, 16, 24, 10), (8, 32, 5, 100)]
KERNELS = [(1, 2), (16, 32), (3, 64), (64, 17)]
BOUND = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-12}

collaborative = jax.jit(losses.collaborative_loss, static_argnames="scale_by_t2")
intermediate = jax.jit(losses.intermediate_loss, static_argnames="scale_by_t2")
similarity = jax.jit(losses.similarity_matrix, static_argnames=("representation", "center"))
pull_push = jax.jit(
    losses.pull_push_loss, static_argnames=("input_representation", "num_classes", "per_example")
)
kernel = jax.jit(losses.kernel_loss)


@jax.jit
def logit_losses(logits, y, q, temperature):
    one, rest = logits[0], logits[1:]
    return (
        losses.hard_loss(one, y),
        losses.hard_loss(one, y, temperature=temperature),
        losses.soft_loss(one, q, temperature=temperature),
        losses.consensus(logits, temperature=temperature),
        losses.collaborative_loss(logits, y),
        losses.collaborative_loss(logits, y, temperature=temperature, alpha=0.3),
        losses.intermediate_loss(logits, y),
        losses.intermediate_loss(rest, y, temperature=temperature, beta=0.7, output_logits=one),
    )


def reference_logit_losses(logits, y, q, temperature):
    one, rest = logits[0], logits[1:]
    return (
        reference.hard(one, y),
        reference.hard(one, y, temperature),
        reference.soft(one, q, temperature),
        reference.consensus(logits, temperature),
        reference.collaborative(logits, y),
        reference.collaborative(logits, y, temperature, alpha=0.3),
        reference.intermediate(logits, y),
        reference.intermediate(rest, y, temperature, beta=0.7, output_logits=one),
    )


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    with jax.enable_x64(request.param is np.float64):
        yield np.dtype(request.param)


def check(ours, expected, dtype, scale):
    assert ours.dtype == dtype
    assert ours.shape == np.shape(expected)
    bound = BOUND[dtype] * scale
    assert (np.abs(np.asarray(ours, np.float64) - expected) <= bound).all()


def random_labels(rng, batch, classes, dtype, as_integers):
    if as_integers:
        return rng.integers(0, classes, batch).astype(np.int32)
    return rng.dirichlet(np.ones(classes), batch).astype(dtype)


def test_logit_losses_match_numpy_on_random_cases(dtype):
    for case in range(CASES):
        rng = np.random.default_rng(case)
        views, batch, classes = LOGITS[case % len(LOGITS)]
        temperature = [1.0, 2.0, 3.0, 5.0][case % 4]
        logits = rng.normal(size=(views, batch, classes)) * 10 ** rng.uniform(-1, 2)
        logits = logits.astype(dtype)
        y = random_labels(rng, batch, classes, dtype, as_integers=case // 3 % 2 == 0)
        q = rng.dirichlet(np.ones(classes), batch).astype(dtype)
        ours = logit_losses(logits, y, q, temperature)
        expected = reference_logit_losses(logits, y, q, temperature)
        for value, reference_value in zip(ours, expected, strict=True):
            check(value, reference_value, dtype, 1 + np.abs(logits).max())


def test_pull_push_matches_numpy_on_random_cases(dtype):
    for case in range(CASES):
        rng = np.random.default_rng(case)
        batch, side, channels, classes = MAPS[case % len(MAPS)]
        shapes = [(side, side, channels), (side // 2, side // 2, channels), (1, 1, channels)]
        features = [
            (rng.normal(size=(batch, *shape)) * 10 ** rng.uniform(-3, 3) + rng.normal())
            for shape in shapes
        ]
        if case % 3 == 0:
            features = [np.maximum(feature, 0) for feature in features]
        features = [feature.astype(dtype) for feature in features]
        inputs = rng.normal(size=(batch, side, side, 3)).astype(dtype)
        y = rng.dirichlet(np.full(classes, 0.3), batch).astype(dtype)
        pull, push = rng.uniform(size=(2, 3)).astype(dtype)
        pulled, pushed = reference.pull_push_parts(features, inputs, y, pull, push)
        ours = pull_push(features, inputs, y, pull=pull, push=push)
        check(ours, pulled - pushed, dtype, pulled + pushed)


def test_kernel_loss_matches_numpy_on_random_cases(dtype):
    for case in range(CASES):
        rng = np.random.default_rng(case)
        weights = rng.normal(size=(3, 3, *KERNELS[case % len(KERNELS)]))
        weights = (weights * 10 ** rng.uniform(-6, 3) + rng.normal() * 1e-3).astype(dtype)
        expected = reference.kernel(weights)
        check(kernel(weights), expected, dtype, 1 + expected)


@pytest.mark.parametrize("center", ["features", "batch", "none"])
@pytest.mark.parametrize(
    "shape, representation",
    [
        *(((6, 4, 5, 7), representation) for representation in ("auto", "std", "flatten")),
        ((6, 2, 1, 2), "auto"),
        ((6, 1, 1, 7), "auto"),
        ((6, 8, 8, 1), "auto"),
        ((6, 9), "std"),
        *(((6, 4, 7), representation) for representation in ("auto", "std", "flatten")),
        ((6, 1, 7), "auto"),
        ((6, 9, 1), "auto"),
    ],
)
def test_similarity_options_match_numpy(shape, center, representation, dtype):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype) + dtype.type(0.5)
    ours = similarity(x, representation=representation, center=center)
    expected = reference.similarity(x, representation, center)
    check(ours, expected, dtype, 10)


def test_kernel_loss_is_the_worked_example():
    # Rows (1,2,3), (2,4,6) and (1,0,1) after normalisation: correlations 1, 0 and 0.
    weights = jnp.array([[1.0, 2.0, 1.0], [2.0, 4.0, 0.0], [3.0, 6.0, 1.0]]).reshape(1, 1, 3, 3)
    assert kernel(weights) == pytest.approx(np.sqrt(2), abs=1e-6)


def test_kernel_rows_are_output_filters():
    # Two filters, equal but for their scale: correlation 1 in both off-diagonal entries. Were rows
    # input channels, the three rows would be perfectly correlated as well, with norm sqrt(6).
    weights = jnp.array([[1.0, 3.0], [2.0, 6.0], [4.0, 12.0]]).reshape(1, 1, 3, 2)
    assert kernel(weights) == pytest.approx(np.sqrt(2), abs=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (5, 3, 7), (2, 2, 2, 3, 4)])
def test_kernels_of_any_rank_match_numpy(shape, dtype):
    weights = np.random.default_rng(0).normal(size=shape).astype(dtype)
    expected = reference.kernel(weights)
    check(kernel(weights), expected, dtype, 1 + expected)


def test_kernels_in_variables_and_boxes_are_their_arrays():
    weights = jnp.array(np.random.default_rng(0).normal(size=(3, 5, 4)), jnp.float32)
    expected, slope = jax.value_and_grad(losses.kernel_loss)(weights)

    param = nnx.Param(weights)
    assert losses.kernel_loss(param) == expected
    value, of_param = nnx.jit(nnx.value_and_grad(losses.kernel_loss))(param)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(of_param[...], slope, rtol=1e-4, atol=1e-6)

    names = (None, "inputs", "filters")
    for box in (nn.Partitioned(weights, names), nn.LogicallyPartitioned(weights, names)):
        assert losses.kernel_loss(box) == expected
        np.testing.assert_array_equal(jax.grad(losses.kernel_loss)(box).unbox(), slope)


def test_each_token_has_the_loss_that_it_has_as_an_example(dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 5, 2, 6)).astype(dtype)
    flat = logits.reshape(3, 40, 6)
    for y in (rng.integers(0, 6, (4, 5, 2)), rng.dirichlet(np.ones(6), (4, 5, 2)).astype(dtype)):
        flat_y = y.reshape(40, *y.shape[3:])
        tokens, examples = (
            (
                losses.hard_loss(logits[0], y),
                collaborative(logits, y),
                intermediate(logits, y),
                intermediate(logits[1:], y, output_logits=logits[0]),
            ),
            (
                reference.hard(flat[0], flat_y),
                reference.collaborative(flat, flat_y),
                reference.intermediate(flat, flat_y),
                reference.intermediate(flat[1:], flat_y, output_logits=flat[0]),
            ),
        )
        for found, expected in zip(tokens, examples, strict=True):
            check(found, expected.reshape(*expected.shape[:-1], 4, 5, 2), dtype, 10)
    targets = losses.consensus(logits, temperature=2.0)
    check(targets, reference.consensus(flat, 2.0).reshape(logits.shape), dtype, 10)


def test_similarity_of_one_hot_labels():
    # Centred one-hot vectors: 1 within a class, -1/(m - 1) across classes.
    y = jnp.array([0, 2, 0, 3])
    ours = similarity(jax.nn.one_hot(y, 4))
    same = np.asarray(y)[:, None] == np.asarray(y)[None, :]
    np.testing.assert_allclose(ours, np.where(same, 1.0, -1 / 3), atol=1e-6)


def test_pull_push_takes_integer_labels_and_python_weights():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(4, 3, 3, 5)).astype(np.float32) for _ in range(2)]
    inputs = rng.normal(size=(4, 6, 6, 3)).astype(np.float32)
    y = jnp.array([0, 1, 1, 2])
    weights = dict(pull=[0.25, 1.0], push=[1.0, 0.5])
    ours = pull_push(features, inputs, y, **weights, num_classes=3)
    pulled, pushed = reference.pull_push_parts(features, inputs, np.eye(3)[y], **weights)
    np.testing.assert_allclose(ours, pulled - pushed, atol=1e-6)


def test_pull_push_per_example_is_the_root_mean_square_of_the_entries(dtype):
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(4, *shape)).astype(dtype) for shape in ((3, 3, 5), (7, 5), (6,))]
    inputs = rng.normal(size=(4, 8, 3)).astype(dtype)
    y = np.array([0, 1, 1, 2], np.int32)
    weights = dict(pull=[0.0, 0.5, 1.0], push=[1.0, 0.5, 0.0])
    ours = pull_push(features, inputs, y, **weights, num_classes=3, per_example=True)
    own = [reference.similarity(h) for h in features]
    pulled = [np.sqrt(np.mean((s - reference.similarity(np.eye(3)[y])) ** 2)) for s in own]
    pushed = [np.sqrt(np.mean((s - reference.similarity(inputs)) ** 2)) for s in own]
    expected = np.multiply(weights["pull"], pulled) - np.multiply(weights["push"], pushed)
    check(ours, expected, dtype, 10)
    printed = pull_push(features, inputs, y, **weights, num_classes=3)
    check(printed, 4 * expected, dtype, 40)


@pytest.mark.parametrize("repeats", [2, 4])
def test_a_larger_batch_of_the_same_examples_moves_features_as_much_per_example(repeats):
    rng = np.random.default_rng(0)
    maps, inputs = rng.normal(size=(2, 4, 3, 3, 3)).astype(np.float32)
    y = np.array([0, 1, 1, 2], np.int32)

    @jax.jit
    def gradients(scale, maps, inputs, y):
        def loss(scale, **options):
            options.update(pull=[0.3], push=[0.2], num_classes=3)
            return losses.pull_push_loss([maps * scale], inputs, y, **options)[0]

        return jax.grad(loss)(scale), jax.grad(lambda s: loss(s, per_example=True))(scale)

    scale = np.array([1.0, 2.0, 0.5], np.float32).reshape(1, 1, 1, 3)
    printed, each = gradients(scale, maps, inputs, y)
    more = [np.concatenate([x] * repeats) for x in (maps, inputs, y)]
    printed_of_more, each_of_more = gradients(scale, *more)
    np.testing.assert_allclose(each_of_more, each, rtol=1e-4)
    np.testing.assert_allclose(printed_of_more, repeats * printed, rtol=1e-4)


def test_inputs_can_be_flattened_where_features_are_not():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(4, 3, 3, 5)).astype(np.float32)]
    inputs = rng.normal(size=(4, 6, 6, 3)).astype(np.float32)
    weights = dict(pull=[0.0], push=[1.0], num_classes=3)
    y = jnp.array([0, 1, 1, 2])
    ours = pull_push(features, inputs, y, **weights, input_representation="flatten")
    distance = reference.similarity(features[0]) - reference.similarity(inputs, "flatten")
    np.testing.assert_allclose(ours, [-np.linalg.norm(distance)], rtol=1e-6)


def test_scale_by_t2_multiplies_the_soft_part_alone(dtype):
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(dtype)
    y = np.array([0, 1, 2, 3], np.int32)
    options = dict(temperature=3.0, scale_by_t2=True)
    check(
        collaborative(logits, y, **options),
        reference.collaborative(logits, y, **options),
        dtype,
        10,
    )
    check(
        intermediate(logits, y, **options),
        reference.intermediate(logits, y, **options),
        dtype,
        10,
    )


def test_last_layer_has_a_soft_part_only_under_output_logits():
    logits = jnp.array(np.random.default_rng(0).normal(size=(3, 4, 5)), jnp.float32)
    y = jnp.array([0, 1, 2, 3])
    without = intermediate(logits, y, alpha=0.0, beta=1.0)
    assert (without[-1] == 0).all() and (without[:-1] > 0).all()
    under = intermediate(logits, y, alpha=0.0, beta=1.0, output_logits=logits[0])
    assert (under > 0).all()


def test_a_sequence_of_layers_equals_their_stack():
    logits = jnp.array(np.random.default_rng(0).normal(size=(3, 4, 5)), jnp.float32)
    y = jnp.array([0, 1, 2, 3])
    stacked = intermediate(logits, y)
    np.testing.assert_array_equal(intermediate(list(logits), y), stacked)
    np.testing.assert_array_equal(intermediate(tuple(logits), y), stacked)


def test_branches_far_apart_do_not_disturb_each_other_s_targets():
    small = jnp.array([[0.3, -0.2, 0.1]])
    targets = losses.consensus(jnp.stack([1e4 * small, small]), temperature=1.0)
    np.testing.assert_array_equal(targets[0], jax.nn.softmax(small))


def test_labels_outside_the_classes_give_nan():
    logits = jnp.zeros((3, 4))
    np.testing.assert_array_equal(
        jnp.isnan(losses.hard_loss(logits, jnp.array([-1, 2, 4]))), [True, False, True]
    )
