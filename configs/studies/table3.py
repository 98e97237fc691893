"""Table III: every sum of the four collaborations on CIFAR-100, two networks.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Table III.

Command:
    python -m collab_jax.study --study configs/studies/table3.py --out runs/table3

30 cells with three seeds each: 90 runs of 200 epochs, for a cluster. The baseline is a cell of
Table I: `python -m collab_jax.report runs/table3 runs/table1 --out report` compares with it.
"""

from collab_jax.study import Study, paper


def get_study() -> Study:
    """The paper's 30 cells."""
    title = "Table III: test error (%) of combinations on CIFAR-100"
    return Study(title=title, tables=(paper.combinations(title),), seeds=(0, 1, 2))
