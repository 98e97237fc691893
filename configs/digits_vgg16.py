"""Narrow VGG-16 on scikit-learn's bundled digits; needs no download.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks",
whose methods it shows; the paper has no such data set.

Command:
    python launch.py --config configs/digits_vgg16.py:out+mid+pull_push+kernel

Cost: 30 epochs of 1,437 images (8x8), 330 steps of 128; time not measured.

Expected: no number in the paper; 3% test error or less is the aim.

Digits are not flipped: a mirrored 2 is none.
"""

from ml_collections import ConfigDict

from collab_jax import config as config_lib


def get_config(method: str = "baseline") -> ConfigDict:
    """The recipe with a method such as baseline or out+mid."""
    return config_lib.recipe(
        method,
        {
            "epochs": 30,
            "batch_size": 128,
            "learning_rate": 0.05,
            "decay_epochs": (0.5, 0.8),
            "data.name": "digits",
            "data.flip": False,
            "model.name": "vgg16",
            "model.width": 0.25,
            "model.classifier_width": 128,
            "mid.head_width": 32,
        },
    )
