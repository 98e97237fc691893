"""ResNet-18 on ImageNet32, the paper's 40-epoch recipe.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks",
Sec. IV-A and Table II.

Command:
    python launch.py --config configs/imagenet32_resnet18.py:out+mid+pull_push
    python launch.py --config configs/imagenet32_resnet18.py:baseline --config.model.width=2

Cost: 40 epochs of 1,281,167 images (32x32), 200,160 steps of 256; time not measured.

Expected top-5 test error: the paper's (one run, lowest over all epochs), in %:
    baseline              24.10
    baseline 2x           22.38
    out                   22.27
    mid                   22.01
    pull_push             23.12
    kernel                22.95
    out+mid+pull_push     22.05
    mid+pull_push+kernel  21.64

The paper does not give its weight decay; 5e-4 is taken from CIFAR.
The second command is baseline 2x, twice the filters.
"""

from ml_collections import ConfigDict

from collab_jax.config import paper


def get_config(method: str = "baseline") -> ConfigDict:
    """The recipe with a method such as baseline or out+mid."""
    return paper.recipe(method, "imagenet_resized/32x32", "resnet18")
