"""Fig. 2: test error of VGG-16 on CIFAR-100 with 10 to 50% label noise.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Fig. 2.

Command:
    python -m collab_jax.study --study configs/studies/fig2.py --out runs/fig2

Six curves over five levels with three seeds each: 90 runs of 200 epochs, for a cluster.
"""

from collab_jax.study import Study, paper


def get_study() -> Study:
    """The figure's 30 points."""
    title = "Fig. 2: test error (%) with label noise, VGG-16 on CIFAR-100"
    return Study(title=title, tables=(paper.label_noise(title),), seeds=(0, 1, 2))
