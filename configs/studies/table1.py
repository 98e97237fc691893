"""Table I: test error on CIFAR-10 and CIFAR-100, eight methods, two networks.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Table I.

Command:
    python -m collab_jax.study --study configs/studies/table1.py --out runs/table1

32 cells with three seeds each: 96 runs of 200 epochs, for a cluster. The paper has one run a cell.
"""

from collab_jax.study import Study, paper


def get_study() -> Study:
    """The paper's 32 cells."""
    title = "Table I: test error (%) on CIFAR-10 and CIFAR-100"
    table = paper.errors(title, ("cifar10", "cifar100"))
    return Study(title=title, tables=(table,), seeds=(0, 1, 2))
