"""Each mistake gives a ValueError that names the argument, its shape and what was expected."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax import losses

pytestmark = pytest.mark.misuse


def z(*shape):
    return np.zeros(shape, np.float32)


def y(*shape):
    return np.zeros(shape, np.int32)


def pull_push(features=None, inputs=None, labels=None, **options):
    features = [z(4, 2, 2, 3)] * 2 if features is None else features
    inputs = z(4, 8, 8, 3) if inputs is None else inputs
    labels = z(4, 5) if labels is None else labels
    return losses.pull_push_loss(
        features, inputs, labels, **{"pull": [0.0, 1.0], "push": [1.0, 0.0], **options}
    )


def intermediate(logits, labels=None, **options):
    return losses.intermediate_loss(logits, y(4) if labels is None else labels, **options)


# the call, and what its message has: argument, shape or value, expectation
MISTAKES = [
    (lambda: losses.hard_loss(z(), y()), "logits", "(..., classes)", "got ()"),
    (lambda: losses.hard_loss(z(4, 0), y(4)), "logits", "at least one class", "got (4, 0)"),
    (lambda: losses.hard_loss(z(4, 3), y(5)), "y", "(4,)", "(4, 3)", "int32 of shape (5,)"),
    (lambda: losses.hard_loss(z(4, 3), z(4, 2)), "y", "(4, 3)", "float32 of shape (4, 2)"),
    (lambda: losses.hard_loss(z(4, 3), z(4)), "y", "integer labels", "float32 of shape (4,)"),
    (lambda: losses.hard_loss(z(4, 3), y(4, 3)), "y", "probabilities", "int32 of shape (4, 3)"),
    (lambda: losses.hard_loss(z(4, 3), y(4) == 0), "y", "integer labels", "bool of shape (4,)"),
    (lambda: losses.hard_loss(z(2, 4, 3), y(4)), "y", "(2, 4)", "int32 of shape (4,)"),
    (lambda: losses.hard_loss(z(4, 3), y(4), temperature=0.0), "temperature", "positive", "0.0"),
    (lambda: losses.hard_loss(z(4, 3), y(4), temperature=z(4)), "temperature", "scalar", "(4,)"),
    (lambda: losses.soft_loss(z(4, 3), z(4)), "targets", "(4, 3)", "got (4,)"),
    (lambda: losses.soft_loss(z(4, 3), z(3, 4)), "targets", "(4, 3)", "got (3, 4)"),
    (lambda: losses.soft_loss(z(4, 3), z(4, 3), temperature=-1), "temperature", "positive", "-1"),
    (
        lambda: losses.consensus(z(1, 4, 3), temperature=2.0),
        "logits",
        "at least two branches",
        "got (1, 4, 3)",
    ),
    (
        lambda: losses.consensus(z(4, 3), temperature=2.0),
        "logits",
        "(branches, batch, ..., classes)",
        "got (4, 3)",
    ),
    (
        lambda: losses.consensus(z(2, 4, 3), temperature=float("nan")),
        "temperature",
        "positive",
        "nan",
    ),
    (lambda: losses.collaborative_loss(z(1, 4, 3), y(4)), "logits", "two branches", "(1, 4, 3)"),
    (lambda: losses.collaborative_loss(z(4, 3), y(4)), "logits", "(branches,", "got (4, 3)"),
    (lambda: losses.collaborative_loss(z(2, 4, 5, 3), y(4)), "y", "(4, 5)", "shape (4,)"),
    (lambda: losses.collaborative_loss(z(2, 4, 3), y(2, 4)), "y", "(4,)", "shape (2, 4)"),
    (lambda: losses.collaborative_loss(z(2, 4, 3), z(4, 2)), "y", "(4, 3)", "shape (4, 2)"),
    (
        lambda: losses.collaborative_loss(z(2, 4, 3), y(4), alpha=z(4)),
        "alpha",
        "scalar",
        "(4,)",
    ),
    (lambda: intermediate(z(0, 4, 3)), "local_logits", "at least one layer", "got (0, 4, 3)"),
    (lambda: intermediate([]), "local_logits", "at least one layer", "empty"),
    (lambda: intermediate(z(4, 3)), "local_logits", "(layers, batch, ..., classes)", "got (4, 3)"),
    (lambda: intermediate([z(4)]), "local_logits", "(batch, ..., classes)", "got (1, 4)"),
    (
        lambda: intermediate([z(4, 3), z(4, 3), z(4, 2)]),
        "local_logits[2]",
        "local_logits[0], (4, 3)",
        "got (4, 2)",
    ),
    (lambda: intermediate(z(2, 4, 5, 3), y(4)), "y", "(4, 5)", "shape (4,)"),
    (lambda: intermediate(z(2, 4, 3), y(3)), "y", "(4,)", "shape (3,)"),
    (
        lambda: intermediate(z(2, 4, 3), output_logits=z(4, 2)),
        "output_logits",
        "(4, 3)",
        "got (4, 2)",
    ),
    (lambda: intermediate(z(2, 4, 3), temperature=0), "temperature", "positive", "0"),
    (lambda: intermediate(z(2, 4, 3), beta=z(2)), "beta", "scalar", "(2,)"),
    (lambda: losses.similarity_matrix(z(4)), "x", "(batch, features)", "got shape (4,)"),
    (lambda: losses.similarity_matrix(z(4, 2, 2, 2, 2)), "x", "maps", "got shape (4, 2, 2, 2, 2)"),
    (lambda: losses.similarity_matrix(z(4, 0, 2)), "x", "sequences", "got shape (4, 0, 2)"),
    (lambda: losses.similarity_matrix(z(0, 3)), "x", "non-empty", "got shape (0, 3)"),
    (
        lambda: losses.similarity_matrix(z(4, 3), representation="deviation"),
        "representation",
        "'auto', 'std', 'flatten'",
        "'deviation'",
    ),
    (
        lambda: losses.similarity_matrix(z(4, 3), center="rows"),
        "center",
        "'features', 'batch', 'none'",
        "'rows'",
    ),
    (lambda: pull_push(features=[]), "features", "at least one layer", "empty"),
    (
        lambda: pull_push(features=[z(4, 2, 2, 3), z(3, 2, 2, 3)]),
        "features[1]",
        "(4, 8, 8, 3)",
        "got shape (3, 2, 2, 3)",
    ),
    (
        lambda: pull_push(features=[z(4, 2, 2, 3), z(4)]),
        "features[1]",
        "maps",
        "got shape (4,)",
    ),
    (lambda: pull_push(inputs=z(4)), "inputs", "maps", "got shape (4,)"),
    (lambda: pull_push(labels=y(4)), "num_classes", "at least 1", "got None"),
    (lambda: pull_push(labels=y(4), num_classes=0), "num_classes", "at least 1", "got 0"),
    (lambda: pull_push(labels=y(3), num_classes=5), "y", "(4,)", "int32 of shape (3,)"),
    (lambda: pull_push(labels=z(4)), "y", "(4, classes)", "float32 of shape (4,)"),
    (lambda: pull_push(num_classes=6), "num_classes", "None or 5", "got 6"),
    (lambda: pull_push(pull=[1.0]), "pull", "(2,)", "got (1,)"),
    (lambda: pull_push(push=[1.0] * 3), "push", "(2,)", "got (3,)"),
    (lambda: pull_push(pull=jnp.ones((2, 1))), "pull", "(2,)", "got (2, 1)"),
    (lambda: pull_push(pull=1.0), "pull", "(2,)", "got ()"),
    (lambda: pull_push(input_representation="raw"), "representation", "'flatten'", "'raw'"),
    (lambda: losses.kernel_loss(z(4)), "kernel", "(..., inputs, filters)", "got (4,)"),
    (lambda: losses.kernel_loss(z(3, 3, 0, 4)), "kernel", "non-empty", "got (3, 3, 0, 4)"),
]


@pytest.mark.parametrize("call, name, words", [(call, n, w) for call, n, *w in MISTAKES])
def test_mistakes_are_named(call, name, words):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert re.match(rf"{re.escape(name)}\b|{re.escape(name)} ", message), message
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_mistakes_are_found_while_tracing():
    with pytest.raises(ValueError, match=r"y must be integer labels of shape \(4,\)"):
        jax.jit(losses.hard_loss)(z(4, 3), y(5))
    with pytest.raises(ValueError, match="at least two branches"):
        jax.eval_shape(lambda z: losses.collaborative_loss(z, y(4)), z(1, 4, 3))
