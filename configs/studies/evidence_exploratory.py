"""What else one would try on a network that is trained out: exploratory, three seeds.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 7 to 9;
L. Song and G. Chai, "Collaborative Learning for Deep Neural Networks"; docs/neighbours.md has the
others.

Command, in a folder with cifar10.npz and cifar10_worse.npz:
    python -m collab_jax.study --study configs/studies/evidence_exploratory.py \\
        --out runs/evidence_exploratory --jobs 2 --threads 1 --reuse runs/evidence

Recipe, data and judgement are those of configs/studies/evidence.py, whose protocol calls all of
this exploratory: three seeds, weights by default and none searched, Holm's method over a table.
"""

from collab_jax.study import Cell, Study, Table

RECIPE = "small_cifar10_vgg16"
COLUMNS = {
    "pull_push": ("pull_push", {}),
    "kernel": ("kernel", {}),
    "tree, 4 heads": ("tree", {}),
    "auxiliary classifiers": ("auxiliary", {}),
    "r_drop, dropout .3": ("r_drop", {"model.dropout": 0.3}),
    "label smoothing .1": ("baseline", {"data.label_smoothing": 0.1}),
    "baseline, twice as wide": ("baseline", {"model.width": 0.5, "model.classifier_width": 512}),
}
ROWS = {"clean labels": "cifar10.npz", "people's labels": "cifar10_worse.npz"}


def get_study() -> Study:
    """A table for each kind of label, three seeds."""
    tables = [
        Table(
            row,
            (
                Cell(row, "baseline", RECIPE, overrides={"data.name": data}),
                *(
                    Cell(row, column, RECIPE, method, {"data.name": data, **values})
                    for column, (method, values) in COLUMNS.items()
                ),
            ),
        )
        for row, data in ROWS.items()
    ]
    return Study(
        title="Trained out, exploratory: 2,000 images of CIFAR-10, VGG-16 at width 1/4",
        tables=tuple(tables),
        seeds=(0, 1, 2),
        note=__doc__ or "",
        pictures=False,
    )
