"""ResNet-18 of twice the width on STL-10, with half the batch.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks",
Sec. IV-A and Table II.

Command:
    python launch.py --config configs/stl10_resnet18_2x.py:baseline

Cost: 200 epochs of 5,000 images (96x96), 15,600 steps of 64; time not measured.

Expected test error: the paper's (one run, lowest over all epochs), in %:
    baseline 2x  32.05

As in the paper, the batch is halved to fit the memory; the rest is as in stl10_resnet18.py.
"""

from ml_collections import ConfigDict

from collab_jax.config import paper


def get_config(method: str = "baseline") -> ConfigDict:
    """The recipe with a method such as baseline or out+mid."""
    return paper.recipe(method, "stl10", "resnet18", batch_size=64, model__width=2.0)
