"""Narrow VGG-16 on 2,000 images of CIFAR-10, reduced to 16x16: small data, trained out, for a CPU.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks",
whose methods it shows; the paper trains on all 50,000 images, with augmentation.

Command:
    python launch.py --config configs/small_cifar10_vgg16.py:out+mid+pull_push

Cost: 80 epochs of 2,000 images (16x16), 3,200 steps of 50; two minutes of a CPU core.

Expected: no number in the paper.

The images are a class-balanced subset that depends on the seed, and so are the 5,000 others that
validate. All 10,000 test images are evaluated, halfway and at the end. There is no augmentation:
with it this network goes on learning for as long as anyone trains it, without it baseline's
training error is 0 and twice the epochs lower its test error by .7 points (results/README.md).
There is no dropout either, but for methods whose branches differ by it alone.
"""

from ml_collections import ConfigDict

from collab_jax import config as config_lib


def get_config(method: str = "baseline") -> ConfigDict:
    """The recipe with a method such as baseline or out+mid."""
    branches = {"out", "r_drop"} & set(config_lib.parse_method(method).split("+"))
    return config_lib.recipe(
        method,
        {
            "epochs": 80,
            "batch_size": 50,
            "eval_every": 40,
            "learning_rate": 0.05,
            "schedule": "cosine",
            "data.name": "cifar10",
            "data.train_examples": 2000,
            "data.validation": 5000,
            "data.image_size": 16,
            "data.crop": False,
            "data.flip": False,
            "model.name": "vgg16",
            "model.width": 0.25,
            "model.classifier_width": 256,
            "model.dropout": 0.5 if branches else 0.0,
            "checkpoint.every_epochs": 40,
            "log.tensorboard": False,
        },
    )
