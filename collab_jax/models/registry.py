"""Models by name."""

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
from jax.core import Tracer

from collab_jax.models.instances import Instances
from collab_jax.models.network import Network
from collab_jax.models.resnet import resnet18, resnet32, resnet101
from collab_jax.models.vgg import vgg16

__all__ = ["MODELS", "create_model", "init_variables", "run_once", "stage_kernels"]

Result = TypeVar("Result")

MODELS = {"vgg16": vgg16, "resnet18": resnet18, "resnet32": resnet32, "resnet101": resnet101}
"""Every network's function by its name."""


def create_model(
    name: str,
    num_classes: int,
    *,
    width: float = 1.0,
    classifier_width: int = 4096,
    **options: Any,
) -> Network:
    """Creates a model by name.

    Args:
      name: vgg16, resnet18, resnet32 or resnet101.
      num_classes: m.
      width: multiplies the number of filters.
      classifier_width: units of the classifier's two hidden layers; 0 for a single linear layer.
      **options: `dropout` and `dtype`, see `Network`.

    Returns:
      A Linen module. `apply(variables, images)` gives logits (B, m); `apply(variables, images,
      train=True, masks_per_layer=K, rngs={"dropout": key}, mutable=["batch_stats"])` gives logits
      (K^2, B, m) and the new batch statistics. `layers` selects its layers for
      `collab_jax.linen.capture`.

    Raises:
      ValueError: if the name is unknown.
    """
    if name not in MODELS:
        raise ValueError(f"name: {name!r} is not a model; expected one of {', '.join(MODELS)}")
    return MODELS[name](num_classes, width=width, classifier_width=classifier_width, **options)


def init_variables(
    module: nn.Module | Instances, key: Any, *inputs: Any, **options: Any
) -> dict[str, Any]:
    """Initialises a module in one program.

    Args:
      module: a Linen module, or copies of one.
      key: a PRNG key.
      *inputs: arrays of the shapes that it will see.
      **options: keyword arguments that are no arrays, such as `train=False`.

    Returns:
      Its variables.
    """
    return run_once(lambda key, *inputs: dict(module.init(key, *inputs, **options)), key, *inputs)


def run_once(function: Callable[..., Result], *args: Any) -> Result:
    """Calls a function as one program that is quick to compile, as it runs once.

    Args:
      function: of pytrees of arrays.
      *args: the pytrees; where one of them is traced, the function becomes a part of that program.

    Returns:
      What the function returns.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args)):
        return function(*args)
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})(*args)


def stage_kernels(params: dict[str, Any], stages: int) -> tuple[Any, ...]:
    """The kernels that L_kernel decorrelates: all but 1x1, of a model's last stages.

    Args:
      params: parameters of a model that `create_model` made.
      stages: how many stages, counted from the output.

    Returns:
      Kernels (kh, kw, cin, cout) in depth order.

    Raises:
      ValueError: if the model has fewer stages.
    """
    names = sorted(name for name in params if name.startswith("stage"))
    if not 1 <= stages <= len(names):
        raise ValueError(f"stages: {stages} given; this model has {len(names)}")
    kernels: list[Any] = []

    def collect(tree: Any) -> None:
        for name in sorted(tree, key=lambda key: (len(key), key)):
            if name == "kernel":
                if tree[name].shape[0] > 1:
                    kernels.append(tree[name])
            elif isinstance(tree[name], dict):
                collect(tree[name])

    for name in names[-stages:]:
        collect(params[name])
    return tuple(kernels)
