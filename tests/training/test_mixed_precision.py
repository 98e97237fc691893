"""model.dtype = bfloat16: convolutions in bfloat16, the classifier and all that is kept float32."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from tiny import ALL_TERMS, tiny_config

from collab_jax import data
from collab_jax.data import DataInfo
from collab_jax.models.blocks import ConvLayer
from collab_jax.training.build import create_experiment
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import train_step


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=320)


def start(digits, dtype, method=ALL_TERMS):
    config = tiny_config(method, model__dtype=dtype)
    parts = create_experiment(config, DataInfo.of(digits), 5)
    state = create_train_state(parts.model, parts.objective, parts.optimizer, (8, 8, 1), seed=0)
    images, labels = digits.train.take(np.arange(64))
    return parts, state, Batch(images=images, labels=labels, indices=jnp.arange(64))


def floats(tree):
    return {
        jax.tree_util.keystr(path): leaf.dtype
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    }


def products(jaxpr):
    """The operands' dtypes of every convolution and matrix product, of inner programs as well."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield {str(variable.aval.dtype) for variable in equation.invars}
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


def test_what_is_kept_is_float32_and_the_convolutions_are_bfloat16(digits):
    parts, state, batch = start(digits, "bfloat16")
    after, report = jax.eval_shape(partial(train_step, parts.settings), state, batch)
    for tree in (state, after, report):
        dtypes = floats(tree)
        assert dtypes
        assert not {name: dtype for name, dtype in dtypes.items() if dtype != jnp.float32}
    assert {f"['{name}']" for name in ("loss", "out", "mid", "pull_push", "kernel")} <= set(
        floats(report)
    )
    inputs = jnp.zeros((2, 8, 8, 1))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    forward = jax.make_jaxpr(parts.model.apply)(variables, inputs)
    found = list(products(forward.jaxpr))
    assert len(found) >= 16
    assert found == [{"bfloat16"}] * (len(found) - 3) + [{"float32"}] * 3
    assert [aval.dtype for aval in forward.out_avals] == [jnp.float32]


def test_batch_statistics_are_summed_in_float32():
    layer = ConvLayer(1, kernel_size=1, dtype=jnp.bfloat16)
    x = 100 + jax.random.normal(jax.random.key(0), (64, 16, 16, 1))
    variables = layer.init(jax.random.key(1), x, train=True)
    variables["params"]["conv"]["kernel"] = jnp.ones((1, 1, 1, 1))
    _, state = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    seen = np.asarray(x.astype(jnp.bfloat16), np.float64)
    found = state["batch_stats"]["norm"]
    # Running statistics begin at 0 and 1; a tenth of the batch's is added.
    np.testing.assert_allclose(found["mean"] / 0.1, seen.mean(), rtol=1e-5)
    np.testing.assert_allclose((found["var"] - 0.9) / 0.1, seen.var(), rtol=1e-2)


@pytest.mark.slow
def test_a_step_in_bfloat16_is_one_in_float32_to_its_rounding(digits):
    reports = {}
    for dtype in ("float32", "bfloat16"):
        parts, state, batch = start(digits, dtype, "out+mid")
        _, report = jax.jit(partial(train_step, parts.settings))(state, batch)
        reports[dtype] = {name: np.asarray(report[name]) for name in ("loss", "out", "mid")}
    for name, value in reports["float32"].items():
        other = reports["bfloat16"][name]
        assert other == pytest.approx(value, rel=0.03)
        assert other != value
        # A loss computed in bfloat16 would be a number that bfloat16 has.
        assert other.astype(jnp.bfloat16).astype(np.float32) != other
