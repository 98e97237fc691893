"""Matrix products and memory of the similarity terms: the least that an exact gradient takes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax import losses

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 64, 128)).astype(np.float32)
MAPS = np.random.default_rng(1).normal(size=(16, 8, 8, 12)).astype(np.float32)
Y = np.arange(16, dtype=np.int32) % 4


def products(fn, *args):
    """Matrix products as written, and as left by the compiler."""
    written = str(jax.make_jaxpr(fn)(*args)).count("dot_general[")
    compiled = jax.jit(fn).lower(*args).compile().as_text()
    return written, len(re.findall(r"= \S+ dot\(", compiled))


def textbook_kernel_loss(kernel):
    rows = kernel.reshape(-1, kernel.shape[-1])
    rows = (rows - rows.mean(0, keepdims=True)) / jnp.std(rows, 0, keepdims=True)
    correlation = rows.T @ rows / len(rows)
    return jnp.sqrt(jnp.sum((correlation * (1 - jnp.eye(len(correlation)))) ** 2))


def test_kernel_loss_and_gradient_take_one_product_each():
    assert products(losses.kernel_loss, KERNEL) == (1, 1)
    assert products(jax.value_and_grad(losses.kernel_loss), KERNEL) == (2, 2)
    # What is counted here: automatic differentiation takes three.
    assert products(jax.value_and_grad(textbook_kernel_loss), KERNEL) == (3, 3)
    tangent = np.ones_like(KERNEL)
    forward = products(lambda k: jax.jvp(losses.kernel_loss, (k,), (tangent,)), KERNEL)
    assert forward == (2, 2)


@pytest.mark.parametrize("shape", [(16, 8, 8, 12), (16, 8, 8, 1), (16, 40)])
@pytest.mark.parametrize("center", ["features", "batch", "none"])
def test_similarity_and_gradient_take_one_product_each(shape, center):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def loss(x):
        return jnp.sum(losses.similarity_matrix(x, center=center) ** 3)

    assert products(loss, x) == (1, 1)
    assert products(jax.value_and_grad(loss), x) == (2, 2)


def test_pull_push_takes_two_products_a_layer_and_one_for_each_end():
    def loss(features):
        weights = dict(pull=[0.0, 0.5, 1.0], push=[1.0, 0.5, 0.0], num_classes=4)
        return losses.pull_push_loss(features, MAPS[..., :3], Y, **weights).sum()

    features = [MAPS, MAPS[:, ::2, ::2] ** 2, MAPS[:, 0, 0]]
    assert products(loss, features)[0] == 3 + 2
    assert products(jax.value_and_grad(loss), features)[0] == 2 * 3 + 2


def test_kernel_gradient_holds_one_copy_of_the_kernel():
    def planned(loss):
        compiled = jax.jit(jax.value_and_grad(loss)).lower(KERNEL).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    correlations = 4 * KERNEL.shape[-1] ** 2
    assert planned(losses.kernel_loss) <= KERNEL.nbytes + 3 * correlations
    assert planned(textbook_kernel_loss) > 2 * KERNEL.nbytes


def test_similarity_gradient_holds_no_copy_of_a_map():
    def loss(x):
        return jnp.sum(losses.similarity_matrix(x) ** 3)

    maps = np.zeros((16, 32, 32, 12), np.float32)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(maps).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= maps.nbytes / 10


def test_products_ask_for_full_precision():
    text = str(jax.make_jaxpr(jax.value_and_grad(losses.kernel_loss))(KERNEL))
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 2
