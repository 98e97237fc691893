"""Classes whose logit is -inf: probability zero, no gradient, and no NaN in any loss."""

import jax
import jax.numpy as jnp
import losses_reference as reference
import numpy as np
import pytest

from collab_jax import losses

INF = np.inf
Y = np.array([2, 1, 0], np.int32)
# Class 3 is impossible everywhere, class 0 for the first example, too.
POSSIBLE = np.array([[False, True, True, False], [True, True, True, False], [True] * 3 + [False]])
LOGITS = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32)
MASKED = np.where(POSSIBLE, LOGITS, -INF).astype(np.float32)
PROBABILITIES = np.array([[0, 0.3, 0.7, 0], [0.2, 0.2, 0.6, 0], [1, 0, 0, 0]], np.float32)

OPTIONS = dict(temperature=2.0, stop_gradient=False)
# a loss of logits (views, batch, classes) and labels, and the same in NumPy
LOSSES = {
    "hard": (
        lambda z, y: losses.hard_loss(z[0], y, temperature=2.0),
        lambda z, y: reference.hard(z[0], y, 2.0),
    ),
    "soft": (
        lambda z, y: losses.soft_loss(z[0], PROBABILITIES, temperature=2.0),
        lambda z, y: reference.soft(z[0], PROBABILITIES, 2.0),
    ),
    "consensus": (
        lambda z, y: losses.consensus(z, **OPTIONS),
        lambda z, y: reference.consensus(z, 2.0),
    ),
    "collaborative": (
        lambda z, y: losses.collaborative_loss(z, y, **OPTIONS),
        lambda z, y: reference.collaborative(z, y),
    ),
    "intermediate": (
        lambda z, y: losses.intermediate_loss(z, y, **OPTIONS),
        lambda z, y: reference.intermediate(z, y),
    ),
    "intermediate, output": (
        lambda z, y: losses.intermediate_loss(z[1:], y, output_logits=z[0], **OPTIONS),
        lambda z, y: reference.intermediate(z[1:], y, output_logits=z[0]),
    ),
}
every_loss = pytest.mark.parametrize("ours, expected", LOSSES.values(), ids=LOSSES.keys())


@every_loss
@pytest.mark.parametrize("y", [Y, PROBABILITIES], ids=["integers", "probabilities"])
def test_impossible_classes_cost_nothing(ours, expected, y):
    found = jax.jit(ours)(MASKED, y)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected(MASKED, y), rtol=2e-5, atol=1e-6)


@every_loss
def test_derivatives_are_those_without_the_impossible_classes(ours, expected):
    weights = np.random.default_rng(1).normal(size=np.shape(expected(MASKED, Y)))
    weights = weights.astype(np.float32)

    def total(z):
        return (weights * ours(z, Y)).sum()

    # A logit of -1e4 is as good as impossible, and one of which nothing is infinite.
    far = np.where(POSSIBLE, LOGITS, -1e4).astype(np.float32)
    gradient = jax.jit(jax.grad(total))
    np.testing.assert_allclose(gradient(MASKED), gradient(far), rtol=2e-5, atol=1e-6)
    assert (np.asarray(gradient(MASKED))[:, ~POSSIBLE] == 0).all()
    tangent = np.ones_like(MASKED)
    curvature = jax.jit(lambda z: jax.jvp(jax.grad(total), (z,), (tangent,))[1])
    np.testing.assert_allclose(curvature(MASKED), curvature(far), rtol=2e-5, atol=1e-6)


def test_the_temperature_and_the_targets_have_finite_derivatives_too():
    def of_temperature(t):
        soft = losses.collaborative_loss(MASKED, Y, temperature=t, stop_gradient=False).sum()
        return soft + losses.intermediate_loss(MASKED, Y, temperature=t).sum()

    slope = jax.jit(jax.grad(of_temperature))(2.0)
    step = 1e-2
    expected = (of_temperature(2 + step) - of_temperature(2 - step)) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=1e-2)
    of_targets = jax.jit(jax.grad(lambda q: losses.soft_loss(MASKED[0], q).sum()))(PROBABILITIES)
    log_prediction = reference.log_softmax(MASKED[0], 1.0)
    np.testing.assert_allclose(
        of_targets, np.where(POSSIBLE, -np.where(POSSIBLE, log_prediction, 0), 0), rtol=1e-5
    )


@pytest.mark.parametrize(
    "y", [np.array([0, 1, 0]), np.eye(4, dtype=np.float32)[[0, 1, 0]]], ids=["integers", "floats"]
)
def test_a_target_that_expects_an_impossible_class_costs_infinity_and_has_a_gradient(y):
    loss, pullback = jax.vjp(lambda z: losses.hard_loss(z, y), MASKED[0])
    assert np.isinf(loss).tolist() == [True, False, False]
    (gradient,) = pullback(jnp.ones(3))
    assert np.isfinite(gradient).all() and (gradient[0] == 0).all()


def test_an_example_without_any_possible_class_costs_nothing_and_disturbs_no_other():
    empty = MASKED.copy()
    empty[:, 1] = -INF

    def total(z):
        out = losses.collaborative_loss(z, Y, stop_gradient=False)
        mid = losses.intermediate_loss(z, Y, stop_gradient=False)
        return losses.hard_loss(z[0], PROBABILITIES) + out + mid.sum(axis=0)

    found, pullback = jax.vjp(total, empty)
    (gradient,) = pullback(jnp.ones(3))
    (expected,) = jax.vjp(total, MASKED)[1](jnp.ones(3))
    assert found[1] == 0 and (gradient[:, 1] == 0).all()
    others = np.array([0, 2])
    np.testing.assert_allclose(found[others], total(MASKED)[others], rtol=1e-6)
    np.testing.assert_allclose(gradient[:, others], expected[:, others], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(losses.consensus(empty, temperature=1.0)[:, 1], 0)


def test_an_infinite_part_of_weight_zero_is_left_out():
    y = np.array([0, 1, 0])
    assert np.isfinite(losses.collaborative_loss(MASKED, y, alpha=0.0)).all()
    assert np.isfinite(losses.intermediate_loss(MASKED, y, alpha=0.0)).all()
    assert np.isinf(losses.collaborative_loss(MASKED, y))[0]
    one = MASKED.copy()
    one[0, 1, 0] = -INF  # one branch alone cannot follow the others
    assert np.isinf(losses.collaborative_loss(one, Y)[1])
    assert np.isfinite(losses.collaborative_loss(one, Y, alpha=1.0)[1])
    assert np.isfinite(losses.intermediate_loss(one, Y, beta=0.0)).all()


def test_an_unknown_label_is_nan_among_impossible_classes_too():
    loss = losses.hard_loss(np.full((2, 3), -INF, np.float32), np.array([3, -1]))
    assert np.isnan(loss).all()


def test_the_worked_example():
    z = np.array([[-INF, 0, 1]], np.float32)
    assert losses.hard_loss(z, np.array([2]))[0] == pytest.approx(np.log(1 + np.exp(-1)), rel=1e-6)
