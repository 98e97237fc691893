"""The collaborations beside their neighbours on scikit-learn's digits, three seeds each.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", compares with
none of these; docs/neighbours.md says what they are.

Command:
    python -m collab_jax.study --study configs/studies/rivals.py --out runs/rivals \\
        --jobs 2 --threads 1

Cost: 42 runs of about a minute and a half on one CPU core.
"""

from collab_jax.config import RIVALS
from collab_jax.study import Cell, Study, Table

RECIPE = "digits_vgg16"
METHODS = ("baseline", "out", "mid", "pull_push", "kernel", *RIVALS)
SWITCHES = {
    "predsim, local only": ("predsim", {"predsim.local_only": True}),
    "spatial dropout .1": ("baseline", {"model.spatial_dropout": 0.1}),
    "DropBlock .1": ("baseline", {"model.drop_block": 0.1}),
}


def get_study() -> Study:
    """Every method and switch, three seeds each."""
    cells = [Cell("digits", method, RECIPE, method, {}) for method in METHODS]
    cells += [
        Cell("digits", name, RECIPE, method, values) for name, (method, values) in SWITCHES.items()
    ]
    return Study(
        title="The collaborations and their neighbours: digits",
        tables=(Table("Digits", tuple(cells)),),
        seeds=(0, 1, 2),
        pictures=False,
    )
