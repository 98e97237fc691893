"""Local back-propagation of pure layers."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax.isolation import isolate, joint, local


def dense_layer(params, x):
    return jnp.tanh(x @ params["w"] + params["b"][None])


@pytest.fixture
def problem():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"w": jax.random.normal(keys[0], (5, 4)), "b": jax.random.normal(keys[1], (4,))}
    x = jax.random.normal(keys[2], (3, 5))
    return params, x, jax.random.normal(keys[3], (2, 3, 4))


def mixed_loss(layer, targets):
    def loss(params, x):
        h, h_local = layer(params, x)
        return (targets[0] * h**2).sum() + (targets[1] * jnp.sin(h_local)).sum()

    return loss


def test_both_outputs_are_the_layers(problem):
    params, x, _ = problem
    h, h_local = isolate(dense_layer)(params, x)
    np.testing.assert_array_equal(h, dense_layer(params, x))
    np.testing.assert_array_equal(h_local, h)


def test_joint_gradient_is_that_of_the_plain_form(problem):
    params, x, targets = problem
    joint = jax.grad(mixed_loss(isolate(dense_layer), targets), argnums=(0, 1))(params, x)
    plain = jax.grad(mixed_loss(isolate(dense_layer, joint=False), targets), argnums=(0, 1))(
        params, x
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), joint, plain)


@pytest.mark.parametrize("joint", [True, False])
def test_local_loss_leaves_the_input_exactly_alone(problem, joint):
    params, x, targets = problem
    layer = isolate(dense_layer, joint=joint)
    of_params, of_input = jax.grad(
        lambda params, x: (targets[1] * layer(params, x)[1]).sum(), argnums=(0, 1)
    )(params, x)
    assert (np.asarray(of_input) == 0).all()
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(of_params))


def test_each_weight_gradient_is_one_product(problem):
    params, x, targets = problem

    def count_products(layer):
        gradient = jax.grad(mixed_loss(layer, targets), argnums=(0, 1))
        text = jax.jit(gradient).lower(params, x).compile().as_text()
        return text.count(" dot(") + text.count("__onednn$matmul")

    def single(params, x):
        h = dense_layer(params, x)
        return h, h

    assert count_products(isolate(dense_layer)) == count_products(single) == 3
    assert count_products(isolate(dense_layer, joint=False)) > 3


def test_pytree_inputs_and_outputs():
    def residual(params, inputs):
        x, skip = inputs["x"], inputs["skip"]
        return {"h": jnp.tanh(x * params) + skip, "size": jnp.asarray(x.shape[0])}

    def loss(params, inputs, which):
        return isolate(residual)(params, inputs)[which]["h"].sum()

    inputs = {"x": jnp.arange(3.0), "skip": jnp.ones(3)}
    of_main = jax.grad(loss, argnums=1)(2.0, inputs, 0)
    of_local = jax.grad(loss, argnums=1)(2.0, inputs, 1)
    np.testing.assert_array_equal(of_main["skip"], np.ones(3))
    np.testing.assert_array_equal(of_local["skip"], np.zeros(3))
    np.testing.assert_array_equal(of_local["x"], np.zeros(3))


def test_under_jit_checkpoint_vmap_and_scan(problem):
    # In float64, where a bound can be close whatever the order of the sums.
    params, x, _ = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), problem)
    with jax.enable_x64(True):
        check_transforms(params, x)


def check_transforms(params, x):
    square = {"w": params["w"][:4], "b": params["b"]}
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf, -leaf]), square)
    x = x[:, :4]

    def scanned(layer):
        def loss(params, x):
            _, local = jax.lax.scan(lambda h, p: layer(p, h), x, params)
            return (local**2).sum()

        return jax.grad(loss, argnums=(0, 1))(stacked, x)

    def looped(params, x):
        total = 0.0
        for i in range(3):
            layer_params = jax.tree.map(lambda leaf, i=i: leaf[i], params)
            h = dense_layer(layer_params, jax.lax.stop_gradient(x))
            total, x = total + (h**2).sum(), h
        return total

    expected = jax.grad(looped, argnums=(0, 1))(stacked, x)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)  # noqa: E731
    jax.tree.map(close, jax.jit(lambda: scanned(isolate(dense_layer)))(), expected)
    jax.tree.map(close, scanned(jax.checkpoint(isolate(dense_layer))), expected)

    def local_gradient(layer, x):
        return jax.grad(lambda params: (layer(params, x)[1] ** 2).sum())(square)

    batched = jax.vmap(lambda row: local_gradient(isolate(dense_layer), row[None]))(x)
    for i in range(3):
        one = local_gradient(isolate(dense_layer), x[i : i + 1])
        jax.tree.map(lambda a, b, i=i: close(a[i], b), batched, one)


def test_forward_mode_and_second_derivatives(problem):
    params, x, targets = problem
    joint, plain = isolate(dense_layer), isolate(dense_layer, joint=False)

    def loss(layer, scale):
        """Two layers, so that the second one's input depends on the scale as well."""
        scaled = jax.tree.map(lambda leaf: scale * leaf, params)
        h, h_local = layer(scaled, x)
        following = {"w": scaled["w"][:4], "b": scaled["b"]}
        return (targets[1] * h_local).sum() + (layer(following, h)[1] ** 2).sum()

    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda scale: loss(joint, scale), (1.0,), (1.0,))
    with pytest.raises(TypeError, match=r"differentiated once; joint=False gives second"):
        jax.grad(jax.grad(lambda scale: loss(joint, scale)))(1.0)
    with pytest.raises(TypeError, match=r"differentiated once; joint=False gives second"):
        jax.jvp(jax.grad(lambda scale: loss(joint, scale)), (1.0,), (1.0,))

    first = jax.grad(lambda scale: loss(plain, scale))
    _, tangent = jax.jvp(lambda scale: loss(plain, scale), (1.0,), (1.0,))
    np.testing.assert_allclose(tangent, first(1.0), rtol=1e-5)

    def with_constant_input(scale):
        """The same function with the second layer's input held at its value at scale 1."""
        scaled = jax.tree.map(lambda leaf: scale * leaf, params)
        following = {"w": scaled["w"][:4], "b": scaled["b"]}
        local = (targets[1] * dense_layer(scaled, x)).sum()
        return local + (dense_layer(following, dense_layer(params, x)) ** 2).sum()

    np.testing.assert_allclose(
        jax.grad(first)(1.0), jax.grad(jax.grad(with_constant_input))(1.0), rtol=1e-4
    )


def test_examples_of_the_docstring():
    assert doctest.testmod(local).attempted > 0
    assert doctest.testmod(local).failed == 0


def test_what_is_no_array_is_a_constant_and_comes_through():
    def layer(params, x, mask, mode, activate):
        h = activate(x @ params["w"])
        h = h * mask if mode == "masked" else h
        return (h, {"mode": mode, "none": None, "count": 3}), params["name"]

    params = {"w": jnp.eye(3), "name": "dense", "unused": None, "steps": np.int32(2)}
    mask = np.array([[1, 0, 1]], bool)
    x = jnp.arange(6.0).reshape(2, 3)

    def loss(w, x, which):
        outputs = isolate(layer)({**params, "w": w}, x, mask, "masked", jnp.tanh)
        (h, rest), name = outputs[which]
        assert rest == {"mode": "masked", "none": None, "count": 3} and name == "dense"
        return (h**2).sum()

    def plain(w, x):
        return (layer({**params, "w": w}, x, mask, "masked", jnp.tanh)[0][0] ** 2).sum()

    expected = jax.grad(plain, argnums=(0, 1))(params["w"], x)
    of_main = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)(params["w"], x, 0)
    of_local = jax.grad(loss, argnums=(0, 1))(params["w"], x, 1)
    np.testing.assert_array_equal(of_main[0], expected[0])
    np.testing.assert_array_equal(of_main[1], expected[1])
    np.testing.assert_array_equal(of_local[0], expected[0])
    assert (np.asarray(of_local[1]) == 0).all()


def test_keys_and_counters_pass_through_a_joint_function():
    def layer(params, x, state):
        keep = jax.random.bernoulli(state["key"], 0.5, x.shape)
        state = {"key": jax.random.split(state["key"])[0], "count": state["count"] + 1}
        h = jnp.where(keep, x * params, 0)
        return (h, state), h

    state = {"key": jax.random.key(0), "count": jnp.asarray(4)}
    x = jnp.ones((4, 4))
    (h, updated), h_local = jax.jit(joint(layer))(3.0, x, state)
    np.testing.assert_array_equal(h, h_local)
    assert updated["count"] == 5

    def loss(params, x, of_main):
        (h, _), h_local = joint(layer)(params, x, state)
        return (h if of_main else h_local).sum()

    for of_main in (True, False):
        of_params, of_x = jax.grad(loss, argnums=(0, 1))(3.0, x, of_main)
        np.testing.assert_array_equal(of_params, (np.asarray(h) != 0).sum())
        np.testing.assert_array_equal(of_x, h if of_main else np.zeros_like(h))


def test_two_layers_in_a_row_are_isolated_as_one(problem):
    params, x, targets = problem

    def norm(scale, h, shift):
        h = scale * (h - h.mean(0, keepdims=True)) + shift
        return (h, h.mean(0)), jnp.sin(h)

    def loss(params, scale, x, shift, weights):
        h, h_local = isolate(dense_layer)(params, x)
        (h, mean), feature = joint(norm, follows=True)(scale, h, h_local, shift)
        terms = (targets[0] * h**2).sum(), mean.sum(), (targets[1] * feature).sum()
        return sum(w * term for w, term in zip(weights, terms, strict=True))

    def plain(params, scale, x, shift, weights):
        (h, mean), _ = norm(scale, dense_layer(params, x), shift)
        inputs = jax.lax.stop_gradient((x, shift))
        _, feature = norm(scale, dense_layer(params, inputs[0]), inputs[1])
        terms = (targets[0] * h**2).sum(), mean.sum(), (targets[1] * feature).sum()
        return sum(w * term for w, term in zip(weights, terms, strict=True))

    arguments = (params, 1.5, x, jnp.ones((3, 4)))
    for weights in ((1.0, 1.0, 1.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)):
        made, expected = (
            jax.grad(f, argnums=(0, 1, 2, 3))(*arguments, weights) for f in (loss, plain)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), made, expected
        )
    of_x = jax.grad(loss, argnums=(2, 3))(*arguments, (0.0, 0.0, 1.0))
    assert all((np.asarray(leaf) == 0).all() for leaf in of_x)
