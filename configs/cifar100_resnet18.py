"""ResNet-18 on CIFAR-100, the paper's 200-epoch recipe.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks",
Sec. IV-A and Table I.

Command:
    python launch.py --config configs/cifar100_resnet18.py:out+mid+pull_push
    python launch.py --config configs/cifar100_resnet18.py:baseline --config.model.width=2

Cost: 200 epochs of 50,000 images (32x32), 78,000 steps of 128; time not measured.

Expected test error: the paper's (one run, lowest over all epochs), in %:
    baseline              22.98
    baseline 2x           21.58
    out                   22.02
    mid                   21.93
    pull_push             22.27
    kernel                22.55
    out+mid+pull_push     22.03
    mid+pull_push+kernel  20.93

The second command is baseline 2x, twice the filters.
"""

from ml_collections import ConfigDict

from collab_jax.config import paper


def get_config(method: str = "baseline") -> ConfigDict:
    """The recipe with a method such as baseline or out+mid."""
    return paper.recipe(method, "cifar100", "resnet18")
