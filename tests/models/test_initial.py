"""Initial values of the layers that no batch norm follows: PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax.models import HierarchicalDropoutClassifier, LocalHeads, Projections
from collab_jax.models.initial import of_inputs


def classifier(width):
    module = HierarchicalDropoutClassifier(40, width)
    return module.init(jax.random.key(0), jnp.ones((2, 100)), train=False)["params"]


def training_parts(module):
    maps = [jnp.ones((2, 6, 6, 50)), jnp.ones((2, 4, 4, 30))]
    return jax.jit(module.init)(jax.random.key(0), maps)["params"]


INPUTS = {
    "hidden layers": (lambda: classifier(300), {"fc1": 100, "fc2": 300, "fc3": 300}),
    "no hidden layer": (lambda: classifier(0), {"fc3": 100}),
    "local heads": (
        lambda: training_parts(LocalHeads(40, width=64, pool=4)),
        # Six pixels a side are pooled to three.
        {
            "layer1_conv": 9 * 50,
            "layer1_fc": 9 * 64,
            "layer2_conv": 9 * 30,
            "layer2_fc": 16 * 64,
        },
    ),
    "projections": (
        lambda: training_parts(Projections(64, kernel_size=5)),
        {"layer1": 25 * 50, "layer2": 25 * 30},
    ),
}


@pytest.mark.parametrize("part", INPUTS)
def test_weights_and_biases_are_uniform_within_the_root_of_the_inputs(part):
    make, inputs = INPUTS[part]
    params = make()
    assert set(params) == set(inputs)
    for name, count in inputs.items():
        for kind, values in params[name].items():
            scaled = np.asarray(values, np.float64).ravel() * count**0.5
            # Bounds of a uniform variable's extremes, deviation and mean: one failure in 10,000.
            slack = 10 / scaled.size
            assert 1 - slack <= np.abs(scaled).max() <= 1 + 1e-6, (name, kind)
            spread = 4 / scaled.size**0.5
            assert abs(scaled.std() - 3**-0.5) < spread / 2, (name, kind)
            assert abs(scaled.mean()) < spread * 3**-0.5, (name, kind)
        bias, kernel = params[name]["bias"], params[name]["kernel"].ravel()
        assert not np.isin(bias, kernel[: bias.size]).all()


def test_dtype_and_shape():
    values = of_inputs(4)(jax.random.key(0), (1000, 2), jnp.bfloat16)
    assert values.shape == (1000, 2) and values.dtype == jnp.bfloat16
    assert 0.45 < float(jnp.abs(values).max()) <= 0.5


def test_a_wide_classifier_starts_near_chance():
    """Three layers 4096 wide, whose masks rescale them: logits far out would stay out."""
    features = jnp.abs(jax.random.normal(jax.random.key(1), (16, 512)))
    module = HierarchicalDropoutClassifier(10, 4096)
    logits, _ = module.init_with_output(
        {"params": jax.random.key(0), "dropout": jax.random.key(2)}, features, train=True
    )
    assert logits.shape == (1, 16, 10)
    assert 0.1 < float(logits.std()) < 0.3  # Flax's default: 1
