"""PyTorch state dicts in the usual layouts, against a float64 NumPy forward pass."""

import jax
import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from collab_jax import models

VGG_GROUPS = ((4, 4), (8, 8), (16, 16, 16), (32, 32, 32), (32, 32, 32))


def convolve(x, kernel, stride=1):
    """x (B, C, H, W), kernel (O, I, k, k), padding k // 2."""
    size = kernel.shape[-1]
    pad = size // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bchwij,ocij->bohw", windows, kernel)


class Layers:
    """Makes a state dict in PyTorch's order and runs the same layers in NumPy."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.state = {}

    def conv_norm(self, name, x, outputs, size=3, stride=1, bias=False):
        def draw(*shape):
            return self.rng.normal(size=shape)

        kernel = draw(outputs, x.shape[1], size, size) / np.sqrt(x.shape[1] * size**2 / 2)
        self.state[f"{name}.conv.weight"] = kernel
        h = convolve(x, kernel, stride)
        if bias:
            self.state[f"{name}.conv.bias"] = draw(outputs)
            h = h + self.state[f"{name}.conv.bias"][:, None, None]
        scale, offset, mean = 1 + 0.1 * draw(outputs), draw(outputs), 0.1 * draw(outputs)
        variance = np.exp(0.1 * draw(outputs))
        self.state |= {
            f"{name}.bn.weight": scale,
            f"{name}.bn.bias": offset,
            f"{name}.bn.running_mean": mean,
            f"{name}.bn.running_var": variance,
            f"{name}.bn.num_batches_tracked": np.array(7),
        }
        column = (slice(None), None, None)
        h = (h - mean[column]) / np.sqrt(variance[column] + 1e-5)
        return h * scale[column] + offset[column]

    def linear(self, name, x, outputs):
        self.state[f"{name}.weight"] = self.rng.normal(size=(outputs, x.shape[1])) / 4
        self.state[f"{name}.bias"] = self.rng.normal(size=outputs)
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]


def vgg(layers, x, hidden):
    for i, group in enumerate(VGG_GROUPS):
        for j, filters in enumerate(group):
            x = np.maximum(layers.conv_norm(f"features.{i}.{j}", x, filters, bias=True), 0)
        if x.shape[-1] > 2 or i == len(VGG_GROUPS) - 1:  # A single pixel is for no layer.
            b, c, h, w = x.shape
            x = x.reshape(b, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))
    x = x.mean(axis=(2, 3))
    for i in range(2 if hidden else 0):
        x = np.maximum(layers.linear(f"classifier.{i}", x, hidden), 0)
    return layers.linear("classifier.last", x, 10)


def resnet(layers, x, hidden):
    assert hidden == 0
    x = np.maximum(layers.conv_norm("stem", x, 4), 0)
    for i, filters in enumerate((4, 8, 16, 32)):
        for j in range(2):
            stride = 2 if i and not j else 1
            h = np.maximum(layers.conv_norm(f"layer{i}.{j}.1", x, filters, stride=stride), 0)
            h = layers.conv_norm(f"layer{i}.{j}.2", h, filters)
            if stride > 1:
                x = layers.conv_norm(f"layer{i}.{j}.shortcut", x, filters, 1, stride)
            x = np.maximum(h + x, 0)
    return layers.linear("linear", x.mean(axis=(2, 3)), 10)


@pytest.mark.parametrize(
    ("name", "network", "hidden"), [("vgg16", vgg, 16), ("vgg16", vgg, 0), ("resnet18", resnet, 0)]
)
def test_logits_are_those_of_the_imported_network(name, network, hidden):
    layers = Layers(seed=hidden)
    images = np.random.default_rng(1).normal(size=(3, 3, 16, 16))
    expected = network(layers, images, hidden)
    model, variables = models.from_torch(name, layers.state)
    logits = jax.jit(model.apply)(variables, images.transpose(0, 2, 3, 1).astype(np.float32))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


class Tensor:
    """As PyTorch's with `requires_grad`: NumPy takes it once it is detached."""

    def __init__(self, array, detached=False):
        self.array, self.detached = array, detached

    def __array__(self, dtype=None, copy=None):
        if not self.detached:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self.array

    def detach(self):
        return Tensor(self.array, detached=True)

    def cpu(self):
        return self

    def float(self):
        return Tensor(self.array.astype(np.float32), self.detached)

    def is_floating_point(self):
        return self.array.dtype.kind == "f"


@pytest.mark.parametrize("type_of", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("wrap", [("net",), ("state_dict",), ("model",), ("state_dict", "model")])
def test_wrapped_trained_and_half_ones_are_read_in_float32(type_of, wrap):
    layers = Layers(seed=0)
    resnet(layers, np.zeros((1, 3, 16, 16)), 0)
    plain = {
        key: value.astype(type_of) if value.ndim else value for key, value in layers.state.items()
    }
    given = {
        key: Tensor(value) if type_of != ml_dtypes.bfloat16 else value
        for key, value in plain.items()
    }
    for key in reversed(wrap):
        given = {"epoch": 3, key: given}
    model, variables = models.from_torch("resnet18", given)
    _, expected = models.from_torch("resnet18", plain)
    assert model.classifier_width == 0
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_what_does_not_fit_is_named():
    layers = Layers(seed=0)
    vgg(layers, np.zeros((1, 3, 16, 16)), 16)
    state = layers.state
    missing = {k: v for k, v in state.items() if k != "features.2.1.bn.running_var"}
    with pytest.raises(ValueError, match=r"features\.2\.2\.conv\.weight has shape .*norm\.var"):
        models.from_torch("vgg16", missing)
    with pytest.raises(ValueError, match="extra is left over"):
        models.from_torch("vgg16", {**state, "extra": np.zeros(3)})
    with pytest.raises(ValueError, match="0 convolutions and 0 linear layers found"):
        models.from_torch("vgg16", {})
    with pytest.raises(ValueError, match="name: 'vgg' is not a model"):
        models.from_torch("vgg", state)
