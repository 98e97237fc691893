"""Table II: top-5 error on ImageNet32 and top-1 error on STL-10, eight methods, two networks.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Table II.

Command:
    python -m collab_jax.study --study configs/studies/table2.py --out runs/table2

32 cells with three seeds each: 96 runs, for a cluster. The paper has one run a cell. Its 39.70 for
VGG-16 with twice the filters on STL-10 is worse than its baseline and may be a misprint.
"""

from collab_jax.study import Study, paper


def get_study() -> Study:
    """The paper's 32 cells."""
    title = "Table II: top-5 error (%) on ImageNet32, top-1 error (%) on STL-10"
    table = paper.errors(title, ("imagenet32", "stl10"))
    return Study(title=title, tables=(table,), seeds=(0, 1, 2))
