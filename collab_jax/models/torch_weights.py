"""Weights of PyTorch's usual CIFAR networks."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from collab_jax.models.network import Network
from collab_jax.models.registry import MODELS, create_model

__all__ = ["from_torch"]

_BASE_FILTERS = {"vgg16": 64, "resnet18": 64, "resnet32": 16, "resnet101": 64}
_WRAPPERS = ("state_dict", "net", "model")


def from_torch(name: str, state_dict: Mapping[str, Any]) -> tuple[Network, dict[str, Any]]:
    """Imports a PyTorch state dict whose layers stand in the usual order.

    The usual CIFAR layouts list each convolution with its batch norm in order of depth, a block's
    shortcut after its main path, and the linear layers last. There are three linear layers (the
    paper's classifier) or one, which gives a model with `classifier_width=0`. A convolution's
    bias is folded into the running mean that follows it.

    Args:
      name: vgg16, resnet18, resnet32 or resnet101.
      state_dict: names to tensors or arrays, in PyTorch's layouts (OIHW and (out, in)), of any
        floating type, or a checkpoint that holds them as `state_dict`, `net` or `model`.

    Returns:
      `(model, variables)`, the width and the classes read off the shapes, in float32.

    Raises:
      ValueError: if the name is unknown, or a tensor is missing, left over, or of another shape.
    """
    if name not in MODELS:
        raise ValueError(f"name: {name!r} is not a model; expected one of {', '.join(MODELS)}")
    tensors = {key: _array(value) for key, value in _unwrapped(state_dict).items()}
    kernels = [key for key, value in tensors.items() if value.ndim == 4]
    linears = [key for key, value in tensors.items() if value.ndim == 2]
    if not kernels or len(linears) not in (1, 3):
        raise ValueError(
            f"state_dict: {len(kernels)} convolutions and {len(linears)} linear layers found; "
            f"expected those of {name} and 1 or 3 linear layers"
        )
    model = create_model(
        name,
        tensors[linears[-1]].shape[0],
        width=tensors[kernels[0]].shape[0] / _BASE_FILTERS[name],
        classifier_width=tensors[linears[0]].shape[0] if len(linears) == 3 else 0,
    )
    channels = tensors[kernels[0]].shape[1]
    template = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, 32, 32, channels), jnp.float32)
    )
    source = _Source(tensors)
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    _fill(template["params"], variables["params"], variables["batch_stats"], source, ())
    source.finish()
    shapes = jax.tree.map(np.shape, variables)
    if shapes != jax.tree.map(np.shape, dict(template)):
        raise ValueError(f"state_dict: its layers are not those of {name} in order")
    return model, jax.tree.map(jnp.asarray, variables)


def _unwrapped(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in _WRAPPERS:
        if isinstance(inner := state_dict.get(key), Mapping):
            return _unwrapped(inner)
    return state_dict


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # NumPy takes no tensor that is trained, on a GPU, or bfloat16.
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    array = np.asarray(value)
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array


class _Source:
    """Takes tensors in the order of the state dict."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self._items: Iterator[tuple[str, np.ndarray]] = iter(
            [(key, value) for key, value in tensors.items() if value.ndim > 0]
        )
        self._next = next(self._items, None)

    def take(self, wanted: str, shape: tuple[int, ...]) -> np.ndarray:
        if self._next is None:
            raise ValueError(f"state_dict: ends before {wanted} of shape {shape}")
        key, value = self._next
        if value.shape != shape:
            raise ValueError(
                f"state_dict: {key} has shape {value.shape}; expected {shape} for {wanted}"
            )
        self._next = next(self._items, None)
        return value

    def take_bias(self, size: int) -> np.ndarray:
        """A convolution's bias, which is told from a batch norm's scale by its name."""
        if self._next is not None and self._next[0].endswith(".bias"):
            return self.take("a convolution's bias", (size,))
        return np.zeros(size, np.float32)

    def finish(self) -> None:
        if self._next is not None:
            raise ValueError(f"state_dict: {self._next[0]} is left over after the last layer")


def _fill(
    template: Mapping[str, Any],
    params: dict[str, Any],
    stats: dict[str, Any],
    source: _Source,
    path: tuple[str, ...],
) -> None:
    """Fills parameters and statistics in order of depth, which is that of (length, name)."""
    where = ".".join(path)
    if "conv" in template:
        height, width, inputs, outputs = template["conv"]["kernel"].shape
        kernel = source.take(f"{where}.conv", (outputs, inputs, height, width))
        bias = source.take_bias(outputs)
        scale, offset, mean, variance = (
            source.take(f"{where}.norm.{part}", (outputs,))
            for part in ("scale", "bias", "mean", "var")
        )
        params["conv"] = {"kernel": kernel.transpose(2, 3, 1, 0)}
        params["norm"] = {"scale": scale, "bias": offset}
        stats["norm"] = {"mean": mean - bias, "var": variance}
        return
    for name in sorted(template, key=lambda key: (len(key), key)):
        if "kernel" in template[name]:
            inputs, outputs = template[name]["kernel"].shape
            kernel = source.take(f"{where}.{name}", (outputs, inputs)).T
            bias = source.take(f"{where}.{name}.bias", (outputs,))
            params[name] = {"kernel": kernel, "bias": bias}
        else:
            params[name] = {}
            branch_stats: dict[str, Any] = {}
            _fill(template[name], params[name], branch_stats, source, (*path, name))
            if branch_stats:
                stats[name] = branch_stats
