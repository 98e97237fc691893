r"""VGG-16 on CIFAR-100 with half of the training labels redrawn every epoch.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks",
Sec. IV-A d and Fig. 2.

Command, at level 0.5 and at another of the paper's five:
    python launch.py --config configs/cifar100_vgg16_label_noise.py:out+mid+pull_push
    python launch.py --config configs/cifar100_vgg16_label_noise.py:baseline \
        --config.data.label_noise=0.1

Cost: 200 epochs of 50,000 images (32x32), 78,000 steps of 128; time not measured.

Expected: at level 0.5 the paper states 3.53 points less test error for out+mid+pull_push than for
baseline (one run, lowest over all epochs); its other values are in a figure alone (Fig. 2).

Labels are replaced by ones uniform over all classes; test labels stay clean.
"""

from ml_collections import ConfigDict

from collab_jax.config import paper


def get_config(method: str = "baseline") -> ConfigDict:
    """The recipe with a method such as baseline or out+mid."""
    return paper.recipe(method, "cifar100", "vgg16", data__label_noise=0.5)
