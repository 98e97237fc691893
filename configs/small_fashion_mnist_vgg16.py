"""Narrow VGG-16 on 1,000 images of Fashion-MNIST, reduced to 14x14: small data, for a CPU.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks",
whose methods it shows; the paper has no such data set. Its gain is largest on STL-10, which has
5,000 training images.

Command:
    python launch.py --config configs/small_fashion_mnist_vgg16.py:out+mid+pull_push

Cost: 100 epochs of 1,000 images (14x14), 1,500 steps of 64; time: see configs/studies/reduced.py.

Expected: no number in the paper.

The images are a class-balanced subset that depends on the seed, and so are the 1,000 others that
validate. All 10,000 test images are evaluated, every fifth epoch. The learning rate decays after
30, 60 and 80% of the epochs, as for CIFAR. The learning rate is what
configs/searches/small_fashion_mnist.py chose for baseline by validation error, and each term's
weight what it chose for that term alone, to two digits; the trials stand in results/searches.
"""

from ml_collections import ConfigDict

from collab_jax import config as config_lib


def get_config(method: str = "baseline") -> ConfigDict:
    """The recipe with a method such as baseline or out+mid."""
    return config_lib.recipe(
        method,
        {
            "epochs": 100,
            "batch_size": 64,
            "eval_every": 5,
            "learning_rate": 0.02,
            "data.name": "fashion_mnist",
            "data.train_examples": 1000,
            "data.validation": 1000,
            "data.image_size": 14,
            "model.name": "vgg16",
            "model.width": 0.125,
            "model.classifier_width": 128,
            "out.alpha": 0.69,
            "mid.weight": 8.3,
            "pull_push.weight": 0.192,
            "kernel.weight": 0.22,
            "checkpoint.every_epochs": 10,
            "log.tensorboard": False,
        },
    )
