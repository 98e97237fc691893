"""A layer that is read where it stands: the same values and gradients, and nothing of its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals
from jax.tree_util import Partial

from collab_jax.isolation import isolate, joint_reading


def layer(params, x):
    h = jnp.tanh(x @ params["w"]) * params["scale"][None]
    return {"h": h, "size": jnp.asarray(len(x))}, h


def head(kernel, h):
    return jnp.square(h @ kernel).sum(axis=1)


@pytest.fixture
def problem():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        params = {"w": jax.random.normal(keys[0], (5, 4)), "scale": jnp.arange(1.0, 5.0)}
        kernel, x = jax.random.normal(keys[1], (4, 2)), jax.random.normal(keys[2], (3, 5))
        yield params, kernel, x


def inside(params, kernel, x):
    main, found = joint_reading(layer)(params, Partial(head, kernel), x)
    return main["h"], found


def anew(params, kernel, x):
    main, found = joint_reading(layer, remat=True)(params, Partial(head, kernel), x)
    return main["h"], found


def outside(params, kernel, x):
    h, local = isolate(lambda params, x: layer(params, x)[1], joint=False)(params, x)
    return h, head(kernel, local)


def gradient(form, weights, argnums=(0, 1, 2)):
    def loss(params, kernel, x):
        h, found = form(params, kernel, x)
        return weights[0] * jnp.sin(h).sum() + weights[1] * jnp.sin(found).sum()

    return jax.grad(loss, argnums=argnums)


@pytest.mark.parametrize("form", [inside, anew])
def test_values_and_gradients_are_those_of_the_plain_form(problem, form):
    for a, b in zip(form(*problem), outside(*problem), strict=True):
        np.testing.assert_array_equal(a, b)
    for weights in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13),
            jax.jit(gradient(form, weights))(*problem),
            gradient(outside, weights)(*problem),
        )


def test_a_loss_on_what_is_read_leaves_the_input_exactly_alone(problem):
    of_params, of_kernel, of_x = gradient(inside, (0.0, 1.0))(*problem)
    assert (np.asarray(of_x) == 0).all() and (np.asarray(of_kernel) != 0).any()
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(of_params))
    *_, of_kernel, _ = gradient(inside, (1.0, 0.0))(*problem)
    assert (np.asarray(of_kernel) == 0).all()


def test_under_vmap_scan_and_checkpoint(problem):
    params, kernel, x = problem
    stacked = jnp.stack([x, 2 * x])
    plain, found = (
        jax.grad(lambda p, form=form: jax.vmap(form, (None, None, 0))(p, kernel, stacked)[1].sum())(
            params
        )
        for form in (outside, inside)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), plain, found)
    square = {"w": params["w"][:4], "scale": params["scale"]}

    def deep(form, p):
        def body(h, part):
            return jax.checkpoint(form)(part, kernel, h)

        return jax.lax.scan(body, x[:, :4], jax.tree.map(lambda w: jnp.stack([w, -w]), p))

    plain, found = (
        jax.grad(lambda p, form=form: sum(y.sum() for y in deep(form, p)))(square)
        for form in (outside, inside)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), plain, found)


@pytest.mark.parametrize("form", [inside, anew])
def test_a_reader_alone_is_computed_anew_and_only_where_it_is_told_to(problem, form):
    text = jax.jit(gradient(form, (1.0, 1.0))).lower(*problem).as_text()
    assert text.count("stablehlo.tanh") == 2
    products = ["layer", "head", "of kernel", "of feature", "of weights", "of input"]
    products += ["head anew"] if form is anew else []
    assert text.count("stablehlo.dot_general") == len(products)


def test_a_second_derivative_and_a_reading_of_no_arrays(problem):
    params, kernel, x = problem
    with pytest.raises(TypeError, match="differentiated once"):
        jax.grad(lambda x: gradient(inside, (1.0, 1.0), 2)(params, kernel, x).sum())(x)
    main, found = joint_reading(layer)(params, lambda h: {"mean": h.mean(), "name": "a"}, x)
    assert found["name"] == "a" and main["size"] == 3
    np.testing.assert_allclose(found["mean"], main["h"].mean())


def test_of_dropout_the_mask_is_kept_and_not_the_random_numbers(problem, capsys):
    params, kernel, x = problem

    def dropped(params, x):
        h = x @ params["w"]
        keep = jax.random.bernoulli(jax.random.key(5), 0.5, h.shape)
        h = jnp.where(keep, h, 0.0)
        return h, h

    def loss(params):
        main, found = joint_reading(dropped)(params, Partial(head, kernel), x)
        return main.sum() + found.sum()

    print_saved_residuals(loss, params)
    kept = [line for line in capsys.readouterr().out.splitlines() if "bernoulli" in line]
    assert len(kept) == 1 and kept[0].startswith("bool[3,4]")
