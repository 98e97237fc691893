r"""VGG-16 on Fashion-MNIST, a 30-epoch recipe of ours.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks",
whose methods it shows; the paper has no such data set.

Command:
    python launch.py --config configs/fashion_mnist_vgg16.py:out+mid+pull_push

Cost: 30 epochs of 60,000 images (28x28), 14,040 steps of 128; time not measured.

Expected: no number in the paper.

The learning rate decays after 30, 60 and 80% of the epochs, as for CIFAR.

A narrow variant for a CPU:
    python launch.py --config configs/fashion_mnist_vgg16.py \
        --config.epochs=3 --config.model.width=0.25 --config.model.classifier_width=128 \
        --config.mid.head_width=32
"""

from ml_collections import ConfigDict

from collab_jax import config as config_lib


def get_config(method: str = "baseline") -> ConfigDict:
    """The recipe with a method such as baseline or out+mid."""
    return config_lib.recipe(
        method, {"epochs": 30, "data.name": "fashion_mnist", "model.name": "vgg16"}
    )
