"""The neighbours' losses once more in float64 NumPy, and what they have in common with ours."""

import itertools

import jax
import jax.numpy as jnp
import losses_reference as reference
import numpy as np
import pytest
from jax.test_util import check_grads

from collab_jax import losses


def softmax(logits, temperature=1.0):
    return np.exp(reference.log_softmax(logits, temperature))


def divergence(p, q):
    return np.sum(p * (np.log(p) - np.log(q)), axis=-1)


def r_drop(logits, temperature=1.0):
    p = softmax(logits, temperature)
    pairs = itertools.combinations(range(len(p)), 2)
    return np.mean([(divergence(p[i], p[j]) + divergence(p[j], p[i])) / 2 for i, j in pairs], 0)


def similarity(features, y):
    to_label = reference.similarity(y)
    return [np.mean((reference.similarity(h) - to_label) ** 2) for h in features]


def gaussian(x, sigma):
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    squared = [[np.sum((a - b) ** 2) for b in x] for a in x]
    return np.exp(-np.array(squared) / (2 * sigma**2 * x.shape[1]))


def operator(x, sigma):
    """Through its eigenvalues."""
    batch = len(x)
    centring = np.eye(batch) - 1 / batch
    values, vectors = np.linalg.eigh(centring @ gaussian(x, sigma) @ centring)
    return (vectors * (values / (values + 1e-5 * batch))) @ vectors.T


def hsic(features, inputs, y, beta, sigma):
    to_input, to_label = operator(inputs, sigma), operator(y, sigma)
    own = [operator(h, sigma) for h in features]
    return [np.trace(k @ to_input) - beta * np.trace(k @ to_label) for k in own]


def decov(h):
    covariance = np.cov(np.asarray(h, np.float64), rowvar=False, bias=True)
    return (np.sum(covariance**2) - np.sum(np.diag(covariance) ** 2)) / 2


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param is np.float64):
        yield np.dtype(request.param)


def check(ours, expected, dtype, rtol=1e-5, atol=1e-6):
    assert ours.dtype == dtype
    exact = dtype == np.float64
    np.testing.assert_allclose(
        ours, expected, rtol=1e-9 if exact else rtol, atol=1e-10 if exact else atol
    )


@pytest.mark.parametrize("branches", [2, 3, 4])
def test_r_drop_matches_numpy(branches, dtype):
    rng = np.random.default_rng(branches)
    logits = (3 * rng.normal(size=(branches, 6, 7))).astype(dtype)
    check(losses.r_drop_loss(logits), r_drop(logits), dtype)
    check(losses.r_drop_loss(logits, temperature=2.0), r_drop(logits, 2.0), dtype)
    tokens = losses.r_drop_loss(logits.reshape(branches, 2, 3, 7))
    check(tokens.reshape(6), r_drop(logits), dtype)


def test_small_divergences_keep_their_digits():
    logits = np.array([[[5.0, 1.0, -2.0]], [[5.0, 1.0 + 1e-3, -2.0]]], np.float32)
    np.testing.assert_allclose(losses.r_drop_loss(logits), r_drop(logits), rtol=1e-3)


def test_similarity_loss_matches_numpy(dtype):
    rng = np.random.default_rng(0)
    shapes = ((4, 4, 5), (2, 2, 3), (7,), (6, 4))
    features = [rng.normal(size=(6, *shape)).astype(dtype) for shape in shapes]
    y = rng.dirichlet(np.full(4, 0.3), 6).astype(dtype)
    check(losses.similarity_loss(features, y), similarity(features, y), dtype)


def test_similarity_loss_is_the_pull_of_pull_push_squared():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(6, 3, 3, 5)).astype(np.float32)]
    y = np.array([0, 1, 1, 2, 0, 3])
    options = {"num_classes": 4}
    pull = losses.pull_push_loss(
        features, features[0], y, pull=[1.0], push=[0.0], per_example=True, **options
    )
    ours = losses.similarity_loss(features, y, **options)
    np.testing.assert_allclose(ours, pull**2, rtol=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 5.0])
def test_hsic_matches_numpy(sigma, dtype):
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(8, *shape)).astype(dtype) for shape in ((3, 3, 4), (5,))]
    inputs = rng.normal(size=(8, 4, 4, 1)).astype(dtype)
    labels = rng.integers(0, 3, 8)
    ours = losses.hsic_loss(features, inputs, labels, beta=2.0, sigma=sigma, num_classes=3)
    expected = hsic(features, inputs, np.eye(3)[labels], 2.0, sigma)
    # Its ridge of 1e-5 B magnifies float32's rounding.
    check(ours, expected, dtype, rtol=5e-3, atol=5e-3)


def test_features_that_are_the_labels_depend_on_them_most():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 4)
    of_label = np.eye(4, dtype=np.float32)[labels]
    noise = rng.normal(size=(16, 4)).astype(np.float32)
    inputs = rng.normal(size=(16, 9)).astype(np.float32)
    features = [of_label, of_label + 0.3 * noise, noise]
    loss = losses.hsic_loss(features, inputs, labels, num_classes=4)
    # Three directions tell four classes apart.
    assert loss[0] < loss[1] < loss[2] and abs(loss[0] + 500 * 3) < 20


def test_decov_matches_numpy(dtype):
    rng = np.random.default_rng(0)
    h = (rng.normal(size=(7, 5)) @ rng.normal(size=(5, 5)) + 3).astype(dtype)
    check(losses.decov_loss(h), decov(h), dtype)


def test_uncorrelated_features_cost_nothing():
    h = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert losses.decov_loss(h) == 0
    assert losses.decov_loss(jnp.concatenate([h, h], axis=1)) == pytest.approx(2.0)


def entropies(logits):
    p = jax.nn.softmax(logits)
    return -jnp.sum(p * jnp.log(p), axis=-1)


def soft_part(logits, stop_gradient):
    y = jnp.zeros(logits.shape[1], int)
    options = {"temperature": 1.0, "alpha": 0.0, "stop_gradient": stop_gradient}
    return losses.collaborative_loss(logits, y, **options)


def test_r_drop_is_the_soft_part_of_out_less_the_entropies():
    logits = jnp.array(np.random.default_rng(0).normal(size=(2, 6, 5)), jnp.float32)

    def less_entropies(logits, stop_gradient):
        return (soft_part(logits, stop_gradient) - entropies(logits).mean(axis=0)).mean()

    def divergence(logits):
        return losses.r_drop_loss(logits).mean()

    np.testing.assert_allclose(divergence(logits), less_entropies(logits, True), rtol=1e-5)
    ours = jax.grad(divergence)(logits)
    free = jax.grad(less_entropies)(logits, False)
    np.testing.assert_allclose(ours, free, atol=1e-6)
    # As L_out trains, its targets are constants and nothing is taken off: another gradient.
    of_out = jax.grad(lambda z: soft_part(z, True).mean())(logits)
    p = jax.nn.softmax(logits)
    np.testing.assert_allclose(of_out, (p - p[::-1]) / 12, atol=1e-6)
    assert float(jnp.abs(ours - of_out).max()) > 0.1 * float(jnp.abs(ours).max())
    # Of three branches L_out's target is the mean of logits, not each other prediction.
    three = jnp.array(np.random.default_rng(1).normal(size=(3, 6, 5)), jnp.float32)
    difference = soft_part(three, True) - entropies(three).mean(axis=0)
    assert float(jnp.abs(difference - losses.r_drop_loss(three)).max()) > 1e-2


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    y = np.array([0, 1, 2, 1, 0])
    with jax.enable_x64(True):
        h, x, z = rng.normal(size=(5, 3, 3, 2)), rng.normal(size=(5, 4)), rng.normal(size=(3, 5, 4))
        for loss, at in (
            (losses.r_drop_loss, z),
            (losses.decov_loss, x),
            (lambda h: losses.similarity_loss([h], y, num_classes=3), h),
            (lambda h: losses.hsic_loss([h], x, y, sigma=1.0, beta=2.0, num_classes=3), h),
        ):
            check_grads(jax.jit(loss), (at,), order=1, atol=1e-3, rtol=1e-3)


def finite(value, gradient):
    assert np.isfinite(value).all() and np.isfinite(gradient).all()


def test_degenerate_inputs_stay_finite():
    y = jnp.array([0, 0, 1, 1])
    for loss in (
        losses.decov_loss,
        lambda h: losses.similarity_loss([h], y, num_classes=2).sum(),
        lambda h: losses.hsic_loss([h], h, y, num_classes=2).sum(),
        lambda h: losses.hsic_loss([h], h, 0 * y, num_classes=2).sum(),
    ):
        differentiate = jax.jit(jax.value_and_grad(loss))
        for h in (
            jnp.zeros((4, 6)),
            jnp.ones((4, 6)),
            jnp.eye(4, 6) * 1e6,
            jnp.full((4, 6), 1e-20),
        ):
            finite(*differentiate(h))
    impossible = jnp.array([[[0.0, 1.0, -jnp.inf]], [[1.0, 1.0, -jnp.inf]]])
    finite(*jax.value_and_grad(lambda z: losses.r_drop_loss(z).sum())(impossible))
    one_sided = impossible.at[0, 0, 2].set(0.0)
    value, gradient = jax.value_and_grad(lambda z: losses.r_drop_loss(z).sum())(one_sided)
    assert value == jnp.inf and jnp.isfinite(gradient).all()
    nothing = jnp.full((2, 1, 3), -jnp.inf)
    value, gradient = jax.value_and_grad(lambda z: losses.r_drop_loss(z).sum())(nothing)
    assert value == 0 and (gradient == 0).all()


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: losses.r_drop_loss(jnp.zeros((1, 3, 4))), "logits must have shape"),
        (lambda: losses.r_drop_loss(jnp.zeros((2, 3, 4)), temperature=0.0), "temperature must be"),
        (lambda: losses.decov_loss(jnp.zeros((3, 4, 4, 2))), "features must be a non-empty matrix"),
        (lambda: losses.decov_loss(jnp.zeros((0, 4))), r"got \(0, 4\)"),
        (lambda: losses.similarity_loss([], jnp.zeros(3, int)), "features must hold at least one"),
        (
            lambda: losses.similarity_loss([jnp.zeros((3, 4))], jnp.zeros(3, int)),
            "num_classes must be given",
        ),
        (
            lambda: losses.similarity_loss(
                [jnp.zeros((3, 4)), jnp.zeros((2, 4))], jnp.zeros(3, int), num_classes=2
            ),
            r"features\[1\] must have the batch of features\[0\]",
        ),
        (
            lambda: losses.hsic_loss([], jnp.zeros((3, 4)), jnp.zeros(3, int), num_classes=2),
            "features must hold at least one",
        ),
        (
            lambda: losses.hsic_loss(
                [jnp.zeros((2, 4))], jnp.zeros((3, 4)), jnp.zeros(3, int), num_classes=2
            ),
            r"features\[0\] must be a non-empty array with the batch of inputs, \(3, 4\)",
        ),
        (
            lambda: losses.hsic_loss([jnp.zeros((3, 4))], jnp.zeros((3, 4)), jnp.zeros(3, int)),
            "num_classes must be given",
        ),
    ],
)
def test_errors_name_the_argument(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_losses_work_under_jit_and_vmap():
    rng = np.random.default_rng(0)
    h = jnp.array(rng.normal(size=(2, 4, 6)), jnp.float32)
    y = jnp.array([0, 1, 1, 2])
    for loss in (
        losses.decov_loss,
        lambda h: losses.similarity_loss([h], y, num_classes=3)[0],
        lambda h: losses.hsic_loss([h], h, y, num_classes=3)[0],
        lambda h: losses.r_drop_loss(jnp.stack([h, h[::-1]])).mean(),
    ):
        one_by_one = jnp.stack([jax.jit(loss)(x) for x in h])
        np.testing.assert_allclose(jax.jit(jax.vmap(loss))(h), one_by_one, rtol=1e-3, atol=2e-3)
