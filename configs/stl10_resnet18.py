"""ResNet-18 on STL-10, the paper's 200-epoch recipe.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks",
Sec. IV-A and Table II.

Command:
    python launch.py --config configs/stl10_resnet18.py:out+mid+pull_push

Cost: 200 epochs of 5,000 images (96x96), 7,800 steps of 128; time not measured.

Expected test error: the paper's (one run, lowest over all epochs), in %:
    baseline              33.31
    baseline 2x           32.05
    out                   27.89
    mid                   30.59
    pull_push             24.80
    kernel                30.35
    out+mid+pull_push     24.66
    mid+pull_push+kernel  24.03

Twice the width (baseline 2x) has a recipe of its own, stl10_resnet18_2x.py.
"""

from ml_collections import ConfigDict

from collab_jax.config import paper


def get_config(method: str = "baseline") -> ConfigDict:
    """The recipe with a method such as baseline or out+mid."""
    return paper.recipe(method, "stl10", "resnet18")
