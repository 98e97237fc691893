"""Gradients against central differences of the float64 NumPy reference."""

import jax
import losses_reference as reference
import numpy as np
import pytest

from collab_jax import losses

STEP = 1e-6


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def central_difference(fn, x):
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        high, low = x.copy(), x.copy()
        high[index] += STEP
        low[index] -= STEP
        gradient[index] = (fn(high) - fn(low)) / (2 * STEP)
    return gradient


def check_gradient(ours, numpy_loss, x):
    """`ours` in reverse and in forward mode against the slopes of `numpy_loss`."""
    expected = central_difference(numpy_loss, x)
    scale = np.abs(expected).max()
    assert scale > 1e-3
    gradient = jax.jit(jax.grad(ours))(x)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * scale)
    direction = np.random.default_rng(99).normal(size=x.shape)
    _, slope = jax.jit(lambda x: jax.jvp(ours, (x,), (direction,)))(x)
    np.testing.assert_allclose(slope, np.sum(expected * direction), rtol=0, atol=1e-3 * scale)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


Y = np.array([0, 2, 1, 2], np.int32)
PROBABILITIES = np.random.default_rng(5).dirichlet(np.ones(3), 4)


@pytest.mark.parametrize("y", [Y, PROBABILITIES], ids=["integers", "probabilities"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_hard_loss(y, temperature):
    check_gradient(
        lambda z: losses.hard_loss(z, y, temperature=temperature).sum(),
        lambda z: reference.hard(z, y, temperature).sum(),
        2 * random(4, 3),
    )


def test_hard_loss_of_probabilities_that_depend_on_parameters():
    z = random(4, 3)
    check_gradient(
        lambda y: losses.hard_loss(z, y).sum(),
        lambda y: reference.hard(z, y).sum(),
        PROBABILITIES,
    )


def test_soft_loss_in_both_arguments():
    z = random(4, 3)
    check_gradient(
        lambda z: losses.soft_loss(z, PROBABILITIES, temperature=2.0).sum(),
        lambda z: reference.soft(z, PROBABILITIES, 2.0).sum(),
        z,
    )
    check_gradient(
        lambda q: losses.soft_loss(z, q, temperature=2.0).sum(),
        lambda q: reference.soft(z, q, 2.0).sum(),
        PROBABILITIES,
    )


def test_consensus_without_stopping():
    weights = random(3, 4, 3, seed=1)
    check_gradient(
        lambda z: (weights * losses.consensus(z, temperature=2.0, stop_gradient=False)).sum(),
        lambda z: (weights * reference.consensus(z, 2.0)).sum(),
        random(3, 4, 3),
    )


def test_consensus_is_a_constant_by_default():
    gradient = jax.grad(lambda z: (z * 0 + losses.consensus(z, temperature=2.0) ** 2).sum())
    assert (gradient(random(3, 4, 3)) == 0).all()


@pytest.mark.parametrize("scale_by_t2", [False, True])
def test_collaborative_loss_with_fixed_targets(scale_by_t2):
    z = random(3, 4, 3)
    targets = reference.consensus(z, 2.0)
    factor = 4.0 if scale_by_t2 else 1.0

    def fixed(z):
        terms = [
            0.3 * reference.hard(b, Y) + 0.7 * factor * reference.soft(b, q, 2.0)
            for b, q in zip(z, targets, strict=True)
        ]
        return np.mean(terms, axis=0).sum()

    check_gradient(
        lambda z: losses.collaborative_loss(z, Y, alpha=0.3, scale_by_t2=scale_by_t2).sum(),
        fixed,
        z,
    )


def test_collaborative_loss_through_its_targets():
    check_gradient(
        lambda z: losses.collaborative_loss(z, Y, stop_gradient=False).sum(),
        lambda z: reference.collaborative(z, Y).sum(),
        random(3, 4, 3),
    )


def test_intermediate_loss_with_fixed_targets():
    z = random(3, 4, 3)
    options = dict(temperature=2.0, alpha=0.4, beta=0.6)

    def fixed(moved):
        # A layer's target is made of the unmoved deeper layers.
        rows = [
            reference.intermediate(np.concatenate([moved[i : i + 1], z[i + 1 :]]), Y, **options)[0]
            for i in range(len(z))
        ]
        return np.sum(rows)

    check_gradient(lambda z: losses.intermediate_loss(z, Y, **options).sum(), fixed, z)


def test_intermediate_loss_through_its_targets():
    z, output = random(2, 4, 3), random(4, 3, seed=1)
    options = dict(temperature=2.0, alpha=0.4, beta=0.6)
    check_gradient(
        lambda z: losses.intermediate_loss(
            z[:2], Y, output_logits=z[2], stop_gradient=False, **options
        ).sum(),
        lambda z: reference.intermediate(z[:2], Y, output_logits=z[2], **options).sum(),
        np.concatenate([z, output[None]]),
    )


def test_intermediate_loss_moves_neither_deeper_layers_nor_the_output():
    z, output = random(3, 4, 3), random(4, 3, seed=1)
    for layer in range(3):

        def loss(z, output, layer=layer):
            return losses.intermediate_loss(z, Y, output_logits=output)[layer].sum()

        by_layer, by_output = jax.jit(jax.grad(loss, argnums=(0, 1)))(z, output)
        own = np.arange(3) == layer
        assert (np.abs(by_layer).max(axis=(1, 2)) > 0).tolist() == own.tolist()
        assert (by_output == 0).all()


@pytest.mark.parametrize("representation", ["std", "flatten"])
@pytest.mark.parametrize("center", ["features", "batch", "none"])
def test_similarity_matrix(center, representation):
    weights = random(4, 4, seed=1)
    options = dict(representation=representation, center=center)
    check_gradient(
        lambda x: (weights * losses.similarity_matrix(x, **options)).sum(),
        lambda x: (weights * reference.similarity(x, **options)).sum(),
        random(4, 2, 2, 4) + 0.5,
    )


def test_pull_push_loss_in_features_inputs_and_labels():
    feature, inputs = random(4, 2, 2, 4), random(4, 2, 2, 3, seed=1)
    weights = dict(pull=[0.7], push=[0.4])

    def ours(feature, inputs, y):
        return losses.pull_push_loss([feature], inputs, y, **weights).sum()

    def expected(feature, inputs, y):
        pulled, pushed = reference.pull_push_parts([feature], inputs, y, **weights)
        return (pulled - pushed).sum()

    for position, x in enumerate((feature, inputs, PROBABILITIES)):

        def at(fn, position=position):
            def of_one(moved):
                arguments = [feature, inputs, PROBABILITIES]
                arguments[position] = moved
                return fn(*arguments)

            return of_one

        check_gradient(at(ours), at(expected), x)


def test_pull_push_loss_of_sequences_per_example():
    feature, inputs = random(4, 5, 4), random(4, 6, 3, seed=1)

    def expected(feature):
        pulled, pushed = reference.pull_push_parts(
            [feature], inputs, PROBABILITIES, pull=[0.7], push=[0.4]
        )
        return (pulled - pushed).sum() / 4

    def ours(feature):
        return losses.pull_push_loss(
            [feature], inputs, PROBABILITIES, pull=[0.7], push=[0.4], per_example=True
        ).sum()

    check_gradient(ours, expected, feature)


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (1, 1, 5, 3), (2, 1, 3, 2), (6, 4), (3, 2, 4)])
def test_kernel_loss(shape):
    check_gradient(losses.kernel_loss, reference.kernel, random(*shape) + 0.3)


@pytest.mark.parametrize(
    "loss, shape",
    [
        (losses.kernel_loss, (3, 3, 2, 4)),
        (lambda x: (losses.similarity_matrix(x) ** 3).sum(), (4, 3, 3, 5)),
        (lambda x: (losses.similarity_matrix(x, center="batch") ** 3).sum(), (4, 6)),
        (lambda z: losses.collaborative_loss(z, Y, stop_gradient=False).sum(), (3, 4, 3)),
    ],
    ids=["kernel", "similarity of maps", "similarity of vectors", "collaborative"],
)
def test_second_derivatives_are_differences_of_gradients(loss, shape):
    x, direction = random(*shape) + 0.2, random(*shape, seed=1)
    gradient = jax.jit(jax.grad(loss))
    expected = (gradient(x + STEP * direction) - gradient(x - STEP * direction)) / (2 * STEP)
    scale = np.abs(expected).max()
    assert scale > 1e-3
    forward_over_reverse = jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (direction,))[1])
    reverse_over_forward = jax.jit(jax.grad(lambda x: jax.jvp(loss, (x,), (direction,))[1]))
    np.testing.assert_allclose(forward_over_reverse(x), expected, rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(reverse_over_forward(x), expected, rtol=0, atol=1e-4 * scale)
