"""Song & Chai's patterns: copies of a network's parts, trained with it and then left behind."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from collab_jax import models
from collab_jax.data import DataInfo
from collab_jax.models.branches import BranchedNetwork
from collab_jax.models.instances import Instances
from collab_jax.models.vgg import VGGStage
from collab_jax.training import build
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import train_step


def tiny(name, **options):
    return models.create_model(name, 10, **{"width": 0.0625, "classifier_width": 8, **options})


def tree(network, **options):
    last = len(network.stages)
    settings = {"split_stages": (last - 2, last - 1), "branches": 2, "rescale": True, **options}
    return models.branched(network, **settings)


def shapes(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


def test_rescaling_is_the_identity_and_divides_the_gradient():
    x = jnp.array([1.0, -2.0])
    np.testing.assert_array_equal(models.rescale_gradient(x, 4), x)
    gradient = jax.grad(lambda x: (3 * models.rescale_gradient(x, 4)).sum())(x)
    np.testing.assert_array_equal(gradient, [0.75, 0.75])
    _, tangent = jax.jvp(lambda x: models.rescale_gradient(x, 4), (x,), (x,))
    np.testing.assert_array_equal(tangent, x / 4)


@pytest.mark.parametrize(
    ("name", "copies"),
    [
        ("vgg16", "tree"),
        ("vgg16", "multi_instance"),
        ("resnet18", "tree"),
        ("resnet32", "tree"),
        pytest.param("resnet32", "multi_instance", marks=pytest.mark.slow),
        pytest.param("resnet101", "tree", marks=pytest.mark.slow),
    ],
)
def test_shapes_and_names(name, copies):
    network = tiny(name)
    x = jnp.zeros((2, 16, 16, 3))
    many = tree(network) if copies == "tree" else Instances(network, 4)
    variables = jax.eval_shape(many.init, jax.random.key(0), x)
    plain = jax.eval_shape(network.init, jax.random.key(0), x)
    first, others = models.split_branches(variables["params"])
    assert shapes(first) == shapes(plain["params"])
    if copies == "multi_instance":
        assert [shapes(tree) for tree in others.values()] == [shapes(first)] * 3
    else:
        last = len(network.stages)
        counts = [sum(f"_{part}" in key for key in others) for part in network_parts(last)]
        assert counts == [0] * (last - 1) + [1, 3, 3]
    options = {"train": True, "rngs": {"dropout": jax.random.key(0)}, "mutable": ["batch_stats"]}
    logits, _ = jax.eval_shape(lambda v: many.apply(v, x, **options), variables)
    assert logits.shape == (4, 2, 10)
    if copies == "tree":
        assert jax.eval_shape(many.apply, variables, x).shape == (2, 10)


def network_parts(stages):
    return ["stem", *(f"stage{number}" for number in range(1, stages + 1)), "classifier"]


@pytest.mark.parametrize("rescale", [True, False])
def test_the_shared_trunk_receives_the_mean_of_the_branches_gradients(rescale):
    stages = tuple(partial(VGGStage, (filters,)) for filters in (3, 4, 5))
    network = models.Network(10, stages, classifier_width=8, dropout=0.0)
    x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    many = tree(network, rescale=rescale)
    variables = jax.jit(many.init)(jax.random.key(0), x)
    rng = {"dropout": jax.random.key(0)}

    def apply(model, params, x):
        stats = {"params": params}
        return model.apply(stats, x, train=True, rngs=rng, mutable=["batch_stats"])[0]

    def summed(params):
        return (apply(many, params, x) ** 2).sum()

    def alone(params, head):
        # A single path with the head's own parts, in an ordinary network.
        own = {
            part: params[part if path == 0 else f"branch{path}_{part}"]
            for part, path in {
                "stage1": 0,
                "stage2": head // 2,
                "stage3": head,
                "classifier": head,
            }.items()
        }
        return (apply(network, own, x) ** 2).sum()

    found = jax.jit(jax.grad(summed))(variables["params"])
    each = jax.jit(lambda p: [jax.grad(alone)(p, head) for head in range(4)])(variables["params"])

    def check(name, heads, divisor):
        expected = jax.tree.map(lambda *g: sum(g) / divisor, *(each[h][name] for h in heads))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()),
            found[name],
            expected,
        )

    check("stage1", range(4), 4 if rescale else 1)
    check("stage2", (0, 1), 2 if rescale else 1)
    check("branch1_stage2", (2, 3), 2 if rescale else 1)
    check("branch2_stage3", (2,), 1)
    check("branch3_classifier", (3,), 1)


def test_heads_draw_their_own_dropout():
    network = models.Network(10, (partial(VGGStage, (8,)),), classifier_width=64)
    many = models.branched(network, split_stages=(0,), branches=2, rescale=True)
    x = jax.random.normal(jax.random.key(1), (4, 2, 2, 1))
    params = jax.jit(many.init)(jax.random.key(0), x)["params"]
    same = {name: params[name.removeprefix("branch1_")] for name in params}
    options = {"train": True, "rngs": {"dropout": jax.random.key(0)}, "mutable": ["batch_stats"]}
    logits, _ = jax.jit(lambda p: many.apply({"params": p}, x, **options))(same)
    assert not np.allclose(logits[0], logits[1])


def test_wrong_splits_are_refused():
    network = tiny("vgg16")
    wrong = BranchedNetwork(10, network.stages, splits=(1, 2))
    with pytest.raises(ValueError, match=r"splits: \(1, 2\) given; expected 5 numbers"):
        jax.eval_shape(wrong.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tree", "multi_instance"])
def test_a_step_moves_every_copy_and_leaves_inference_its_own_tree(method):
    info = DataInfo(10, tuple("abcdefghij"), (8, 8, 1), (0.5,), (0.2,))
    parts = {}
    for name in ("baseline", method):
        config = tiny_config(name, data__label_noise=0.0)
        parts[name] = build.create_experiment(config, info, steps_per_epoch=2)
    made = parts[method]
    baseline, state = (
        create_train_state(p.model, p.objective, p.optimizer, info.image_shape, 0)
        for p in parts.values()
    )
    jax.tree.map(np.testing.assert_array_equal, baseline.params, state.params)
    rng = np.random.default_rng(0)
    batch = Batch(
        images=rng.integers(0, 256, (16, 8, 8, 1), np.uint8),
        labels=rng.integers(0, 10, 16).astype(np.int32),
        indices=np.arange(16, dtype=np.int32),
    )
    after, report = jax.jit(lambda s, b: train_step(made.settings, s, b))(state, batch)
    assert np.isfinite(report["out"])
    assert shapes(after.batch_stats) == shapes(baseline.batch_stats)
    before = jax.tree.leaves((state.params, state.heads))
    moved = [
        (np.asarray(a) != np.asarray(b)).any()
        for a, b in zip(before, jax.tree.leaves((after.params, after.heads)), strict=True)
    ]
    assert all(moved)
