"""Every loss under JAX's transformations, in half precision, and over sharded batches."""

import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax import losses

Y = np.array([0, 2, 1, 2], np.int32)
WEIGHTS = dict(pull=[0.3, 1.0], push=[1.0, 0.2], num_classes=3)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


INPUTS = random(4, 3, 3, 3, seed=7)
TARGETS = np.random.default_rng(8).dirichlet(np.ones(3), 4).astype(np.float32)

# name: a function of one float32 array, and the array
CALLS = {
    "hard": (lambda z: losses.hard_loss(z, Y), random(4, 3)),
    "soft": (lambda z: losses.soft_loss(z, TARGETS), random(4, 3)),
    "consensus": (lambda z: losses.consensus(z, temperature=2.0), random(3, 4, 3)),
    "collaborative": (lambda z: losses.collaborative_loss(z, Y), random(3, 4, 3)),
    "intermediate": (lambda z: losses.intermediate_loss(z, Y), random(3, 4, 3)),
    "intermediate, output": (
        lambda z: losses.intermediate_loss(list(z[1:]), Y, output_logits=z[0]),
        random(3, 4, 3),
    ),
    "similarity": (losses.similarity_matrix, random(4, 3, 3, 5)),
    "pull-push": (
        lambda h: losses.pull_push_loss([h, h[:, 0, 0]], INPUTS, Y, **WEIGHTS),
        random(4, 3, 3, 5),
    ),
    "kernel": (losses.kernel_loss, random(3, 3, 2, 4)),
}
every_loss = pytest.mark.parametrize("loss, x", CALLS.values(), ids=CALLS.keys())


def total(loss):
    return lambda x: jnp.sum(loss(x) ** 2)


def same(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-6)


@every_loss
def test_jit_and_checkpoint(loss, x):
    same(jax.jit(loss)(x), loss(x))
    gradient = jax.jit(jax.grad(total(loss)))(x)
    same(jax.jit(jax.grad(jax.checkpoint(total(loss))))(x), gradient)


@every_loss
def test_vmap_and_scan_equal_a_loop(loss, x):
    xs = jnp.stack([x, 2 * x + 0.1, x**2])
    one_by_one = [jax.jit(jax.value_and_grad(total(loss)))(x) for x in xs]
    values = jnp.stack([value for value, _ in one_by_one])
    gradients = jnp.stack([gradient for _, gradient in one_by_one])

    mapped = jax.jit(jax.vmap(jax.value_and_grad(total(loss))))(xs)
    same(mapped[0], values)
    same(mapped[1], gradients)

    def step(carry, x):
        value, gradient = jax.value_and_grad(total(loss))(x)
        return carry + value, gradient

    scanned = jax.jit(lambda xs: jax.lax.scan(step, 0.0, xs))(xs)
    same(scanned[0], values.sum())
    same(scanned[1], gradients)


@every_loss
def test_forward_mode_agrees_with_reverse_mode(loss, x):
    direction = random(*x.shape, seed=3)
    gradient = jax.jit(jax.grad(total(loss)))(x)
    _, slope = jax.jit(lambda x: jax.jvp(total(loss), (x,), (direction,)))(x)
    same(slope, jnp.vdot(gradient, direction))


@every_loss
def test_hessian_is_symmetric(loss, x):
    first, second = random(*x.shape, seed=3), random(*x.shape, seed=4)

    @jax.jit
    def hessian_vector(v):
        return jax.jvp(jax.grad(total(loss)), (x,), (v,))[1]

    forth, back = hessian_vector(first), hessian_vector(second)
    size = jnp.linalg.norm(forth) * jnp.linalg.norm(second)
    assert abs(jnp.vdot(forth, second) - jnp.vdot(back, first)) <= 1e-5 * size


@every_loss
@pytest.mark.parametrize("half", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(loss, x, half):
    rounded = jnp.asarray(x, half)
    ours, expected = jax.jit(loss)(rounded), jax.jit(loss)(rounded.astype(jnp.float32))
    assert ours.dtype == jnp.float32
    same(ours, expected)
    assert jax.eval_shape(jax.grad(total(loss)), rounded).dtype == half


@pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2.0), jnp.float32(2.0), jnp.bfloat16(2.0)])
def test_scalar_options_do_not_change_the_dtype(scalar):
    z = random(3, 4, 3)
    options = dict(temperature=scalar, alpha=scalar)

    def both():
        out = losses.collaborative_loss(z, Y, **options)
        return out, losses.intermediate_loss(z, Y, **options, beta=scalar)

    with jax.enable_x64(True):
        assert {x.dtype for x in jax.eval_shape(both)} == {np.dtype(np.float32)}


def test_temperature_and_weights_may_be_traced():
    z, h = random(3, 4, 3), random(4, 3, 3, 5)

    @jax.jit
    def loss(temperature, pull):
        own = losses.collaborative_loss(z, Y, temperature=temperature).sum()
        weights = dict(pull=pull, push=1 - pull, num_classes=3)
        return own + losses.pull_push_loss([h, h], INPUTS, Y, **weights).sum()

    expected = losses.collaborative_loss(z, Y, temperature=3.0).sum()
    weights = dict(pull=[0.0, 1.0], push=[1.0, 0.0], num_classes=3)
    expected += losses.pull_push_loss([h, h], INPUTS, Y, **weights).sum()
    same(loss(3.0, jnp.array([0.0, 1.0])), expected)
    assert np.isfinite(jax.grad(loss)(3.0, jnp.array([0.0, 1.0])))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_labels_of_any_integer_type(dtype):
    z = random(4, 3)
    same(losses.hard_loss(z, Y.astype(dtype)), losses.hard_loss(z, Y))


SHARDED = """
    import json
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    from collab_jax import losses

    assert jax.device_count() == 4
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 8, 5)).astype(np.float32)
    h = rng.normal(size=(8, 4, 4, 6)).astype(np.float32)
    inputs = rng.normal(size=(8, 4, 4, 3)).astype(np.float32)
    y = rng.integers(0, 5, 8).astype(np.int32)

    def loss(logits, h, inputs, y):
        out = losses.collaborative_loss(logits, y)
        mid = losses.intermediate_loss(logits, y)
        weights = dict(pull=[0.3, 1.0], push=[1.0, 0.2], num_classes=5)
        features = losses.pull_push_loss([h, h ** 2], inputs, y, **weights)
        return out.mean() + mid.mean() + features.sum(), (out, mid, features)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    alone = step(logits, h, inputs, y)
    across, rows = NamedSharding(mesh, P(None, "data")), NamedSharding(mesh, P("data"))
    put = jax.device_put
    spread = step(put(logits, across), put(h, rows), put(inputs, rows), put(y, rows))
    pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True)
    print(json.dumps({
        "difference": max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs),
        "devices": [len(x.sharding.device_set) for x in jax.tree.leaves(spread)],
        "per_example": spread[0][1][0].sharding.is_equivalent_to(rows, 1),
    }))
"""


def test_sharded_batches_give_the_same_numbers():
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SHARDED)],
        env={
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "PYTHONPATH": ":".join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout)
    assert result["difference"] <= 2e-6
    assert set(result["devices"]) == {4}
    assert result["per_example"]
