"""What the recipes of the paper share: its settings for each data set (Fang and Lin, Sec. IV-A)."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from collab_jax.config.resolve import recipe as general_recipe

__all__ = ["recipe"]

# SGD with momentum 0.9 as everywhere; 5e-4 is printed for CIFAR and STL-10 alone.
_ALL: dict[str, Any] = {"momentum": 0.9, "weight_decay": 5e-4, "decay_factor": 0.2}
_CIFAR = {
    "epochs": 200,
    "batch_size": 128,
    "learning_rate": 0.1,
    "decay_epochs": (0.3, 0.6, 0.8),
}
_DATA: dict[str, dict[str, Any]] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "imagenet_resized/32x32": {
        "epochs": 40,
        "batch_size": 256,
        "learning_rate": 0.1,
        "decay_epochs": (0.3, 0.6, 0.9),
        "top5": True,
    },
    "stl10": {
        "epochs": 200,
        "batch_size": 128,
        "learning_rate": 0.05,
        "decay_epochs": (0.3, 0.6, 0.9),
    },
}


def recipe(method: str, data: str, model: str, **values: Any) -> ConfigDict:
    """The paper's recipe for a data set.

    Args:
        method: such as baseline or out+mid.
        data: the data set's TFDS name.
        model: the network.
        **values: what differs, by key, `__` standing for the dot: `data__label_noise=0.5`.
    """
    own = {name.replace("__", "."): value for name, value in values.items()}
    names = {"data.name": data, "model.name": model}
    return general_recipe(method, {**_ALL, **_DATA[data], **names, **own})
