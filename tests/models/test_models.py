"""The backbones' contract: shapes, layers, locality, hierarchical dropout, capture."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from collab_jax import linen, models
from collab_jax.models.branches import branched
from collab_jax.models.resnet import ResNetStage, basic_layers
from collab_jax.models.vgg import VGGStage

LAYERS = {"vgg16": 13, "resnet18": 17, "resnet32": 31, "resnet101": 100}


def tiny(name, **options):
    return models.create_model(name, 10, **{"width": 0.0625, "classifier_width": 16, **options})


def capture(model, *args, **options):
    return linen.capture(model, *args, layers=model.layers, **options)


def init(model, x):
    return jax.jit(model.init)(jax.random.key(1), x)


def short(name):
    """The same stages, fewer of them: quick to run op by op."""
    if name == "vgg16":
        stages = (partial(VGGStage, (4, 4)), partial(VGGStage, (6,)))
        return models.Network(10, stages, classifier_width=8)
    stages = (
        partial(ResNetStage, (basic_layers(4, 1),)),
        partial(ResNetStage, (basic_layers(6, 2), basic_layers(6, 1))),
    )
    return models.Network(10, stages, stem_filters=4, classifier_width=8)


def train_options(masks=2):
    return {
        "train": True,
        "masks_per_layer": masks,
        "rngs": {"dropout": jax.random.key(7)},
    }


@pytest.mark.misuse
@pytest.mark.parametrize("split_stages", [None, (1,)])
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.bool_])
def test_raw_images_are_refused_with_the_remedy(split_stages, dtype):
    model = tiny("vgg16")
    if split_stages is not None:
        model = branched(model, split_stages=split_stages, branches=2, rescale=True)
    with pytest.raises(ValueError, match=r"images: (u?int|bool).* given; .*/ 255.*normalise"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 8, 8, 1), dtype))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (28, 1), (32, 3), (96, 3)])
def test_shapes(name, size, channels):
    model = tiny(name)
    x = jnp.zeros((2, size, size, channels))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert set(variables) == {"params", "batch_stats"}
    assert jax.eval_shape(model.apply, variables, x).shape == (2, 10)
    for masks in (1, 3):
        captured = jax.eval_shape(
            lambda v, x, masks=masks: capture(model, v, x, **train_options(masks)),
            variables,
            x,
        )
        assert captured.outputs.shape == (masks**2, 2, 10)
        assert len(captured.features) == LAYERS[name]
        assert captured.features[0].shape[:3] == (2, size, size)


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        (8, [8, 8, 4, 4, *[2] * 9]),
        (28, [28, 28, 14, 14, *[7] * 3, *[3] * 6]),
        (32, [32, 32, 16, 16, *[8] * 3, *[4] * 3, *[2] * 3]),
    ],
)
def test_no_layer_of_vgg16_works_on_a_single_pixel(size, sides):
    model = tiny("vgg16")
    x = jnp.zeros((1, size, size, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    features = jax.eval_shape(lambda v: capture(model, v, x, **train_options()).features, variables)
    assert [feature.shape[1] for feature in features] == sides


def test_full_width_parameter_counts():
    """Convolutions as published: 14.7 million in VGG-16, 11.2 in ResNet-18, 0.46 in ResNet-32."""
    for name, expected in {"vgg16": 14.72e6, "resnet18": 11.17e6, "resnet32": 0.466e6}.items():
        model = models.create_model(name, 10)
        variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        params = dict(variables["params"])
        classifier = params.pop("classifier")
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert abs(count - expected) < 0.005 * expected
        assert classifier["fc1"]["kernel"].shape[1] == classifier["fc2"]["kernel"].shape[1] == 4096


def test_width_multiplies_filters():
    model = models.create_model("vgg16", 10, width=2.0, classifier_width=8)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert variables["params"]["stage1"]["layer1"]["conv"]["kernel"].shape == (3, 3, 3, 128)


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_capture_changes_neither_logits_nor_statistics(name):
    model = short(name)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = init(model, x)

    def plain(variables, x):
        return model.apply(variables, x, mutable=["batch_stats"], **train_options())

    def captured(variables, x):
        result = capture(model, variables, x, **train_options())
        return result.outputs, result.variables

    with jax.disable_jit():
        jax.tree.map(np.testing.assert_array_equal, plain(variables, x), captured(variables, x))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        jax.jit(plain)(variables, x),
        jax.jit(captured)(variables, x),
    )


def own_layers(name, params):
    """The path of every layer's parameters, in depth order."""
    paths = {
        tuple(key.key for key in path[:-2])
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
        if path[-2].key == "conv" and path[-3].key != "shortcut"
    }
    return sorted(paths, key=lambda path: [(len(part), part) for part in path])


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_a_local_loss_moves_its_own_layer_and_nothing_else(name):
    model = tiny(name)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = init(model, x)

    def loss(params, x, weights):
        features = capture(model, {**variables, "params": params}, x, **train_options()).features
        return jnp.vdot(weights, jnp.stack([(feature**2).sum() for feature in features]))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    owners = own_layers(name, variables["params"])
    assert len(owners) == LAYERS[name]
    for weights, own in zip(jnp.eye(LAYERS[name]), owners, strict=True):
        of_params, of_input = gradient(variables["params"], x, weights)
        assert (np.asarray(of_input) == 0).all()
        moved = {
            tuple(key.key for key in path)
            for path, leaf in jax.tree_util.tree_leaves_with_path(of_params)
            if (np.asarray(leaf) != 0).any()
        }
        assert moved == {
            (*own, "conv", "kernel"),
            (*own, "norm", "scale"),
            (*own, "norm", "bias"),
        }


def test_hierarchical_dropout_is_k_masks_in_each_of_two_layers():
    k, batch, width = 3, 5, 32
    module = models.HierarchicalDropoutClassifier(4, width, dropout=0.5)
    features = jax.random.normal(jax.random.key(0), (batch, 7))
    variables = module.init(jax.random.key(1), features, train=False)
    logits = module.apply(
        variables, features, train=True, masks_per_layer=k, rngs={"dropout": jax.random.key(2)}
    )
    assert logits.shape == (k * k, batch, 4)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    # Masks are found by driving the layers with simple weights, not by repeating the key's path.
    def passed(fc2_kernel, fc2_bias):
        probe = {
            "fc1": {"kernel": jnp.zeros((7, width)), "bias": jnp.ones(width)},
            "fc2": {"kernel": fc2_kernel, "bias": fc2_bias},
            "fc3": {"kernel": jnp.eye(width), "bias": jnp.zeros(width)},
        }
        outputs = models.HierarchicalDropoutClassifier(width, width, dropout=0.5).apply(
            {"params": probe},
            features,
            train=True,
            masks_per_layer=k,
            rngs={"dropout": jax.random.key(2)},
        )
        return np.asarray(outputs, np.float64).reshape(k, k, batch, width)

    second = passed(jnp.zeros((width, width)), jnp.ones(width))
    assert set(np.unique(second)) == {0.0, 2.0}
    assert len({second[i, j].tobytes() for i in range(k) for j in range(k)}) == k * k
    assert 0.4 < (second > 0).mean() < 0.6
    # A unit of the first layer is seen through whichever units of the second were kept.
    first = np.zeros((k, batch, width))
    for shift in range(12):
        through = passed(jnp.roll(jnp.eye(width), shift, axis=1), jnp.zeros(width))
        first = np.maximum(first, np.roll(through.max(axis=1), -shift, axis=-1) / 2)
    assert set(np.unique(first)) == {0.0, 2.0}

    hidden = np.maximum(np.asarray(features, np.float64) @ p["fc1"]["kernel"] + p["fc1"]["bias"], 0)
    for i in range(k):
        inner = np.maximum(hidden * first[i] @ p["fc2"]["kernel"] + p["fc2"]["bias"], 0)
        for j in range(k):
            expected = inner * second[i, j] @ p["fc3"]["kernel"] + p["fc3"]["bias"]
            np.testing.assert_allclose(logits[i * k + j], expected, rtol=2e-5, atol=2e-5)


def test_inference_drops_nothing_and_needs_no_key():
    model = short("vgg16")
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    variables = init(model, x)
    np.testing.assert_array_equal(model.apply(variables, x), model.apply(variables, x))
    none_dropped, _ = (
        short("vgg16")
        .clone(dropout=0.0)
        .apply(variables, x, mutable=["batch_stats"], **train_options())
    )
    np.testing.assert_array_equal(none_dropped[0], none_dropped[3])


def test_masks_without_a_hidden_layer_are_refused():
    model = short("vgg16").clone(classifier_width=0)
    x = jnp.ones((2, 8, 8, 1))
    variables = init(model, x)
    assert model.apply(variables, x).shape == (2, 10)
    with pytest.raises(ValueError, match="masks_per_layer: 2 given"):
        model.apply(variables, x, mutable=["batch_stats"], **train_options())


@pytest.mark.parametrize(("name", "count"), [("vgg16", 6), ("resnet18", 8), ("resnet32", 20)])
def test_kernels_of_the_last_two_stages(name, count):
    variables = jax.eval_shape(tiny(name).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    kernels = models.stage_kernels(variables["params"], 2)
    assert [kernel.shape[:2] for kernel in kernels] == [(3, 3)] * count
    with pytest.raises(ValueError, match="stages: 9 given"):
        models.stage_kernels(variables["params"], 9)


def test_local_heads_and_projections_take_any_shapes():
    features = [jnp.ones((2, 28, 28, 3)), jnp.ones((2, 7, 5, 9)), jnp.ones((2, 1, 1, 4))]
    heads = models.LocalHeads(10, width=6, pool=4)
    params = jax.jit(heads.init)(jax.random.key(0), features)["params"]
    assert heads.apply({"params": params}, features).shape == (3, 2, 10)
    assert params["layer1_fc"]["kernel"].shape == (4 * 4 * 6, 10)
    assert params["layer2_fc"]["kernel"].shape == (4 * 3 * 6, 10)
    assert params["layer3_conv"]["kernel"].shape == (3, 3, 4, 6)
    projections = models.Projections(8)
    projected, _ = jax.eval_shape(projections.init_with_output, jax.random.key(0), features)
    assert [p.shape for p in projected] == [(2, 28, 28, 8), (2, 7, 5, 8), (2, 1, 1, 8)]


def test_unknown_model():
    with pytest.raises(ValueError, match="name: 'vgg19' is not a model; expected one of vgg16"):
        models.create_model("vgg19", 10)
