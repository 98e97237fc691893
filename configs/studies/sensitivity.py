"""What the small-data study leaves open: the temperature of L_out, and the terms under label noise.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 2 to 5 and
Fig. 2.

Command:
    python -m collab_jax.study --study configs/studies/sensitivity.py --out runs/sensitivity \\
        --jobs 2 --threads 1

Cost: see configs/studies/reduced.py for the time of a run; 45 runs, of which that study has 25.
"""

from collab_jax.study import Cell, Study, Table

RECIPE = "small_fashion_mnist_vgg16"
BEST = "out+mid+pull_push"
NOISE = 0.5


def get_study() -> Study:
    """Two tables, five seeds each."""
    return Study(
        title="Sensitivity: Fashion-MNIST, 1,000 training images, VGG-16 at width 1/8",
        tables=(_temperatures(), _noise()),
        seeds=(0, 1, 2, 3, 4),
        pictures=False,
    )


def _temperatures() -> Table:
    row = "1,000 images"
    cells = [Cell(row, "baseline", RECIPE), Cell(row, "out, T = 2", RECIPE, "out")]
    cells += [
        Cell(row, f"out, T = {value:g}", RECIPE, "out", {"out.temperature": value})
        for value in (1.0, 4.0)
    ]
    return Table("L_out: temperature", tuple(cells))


def _noise() -> Table:
    overrides = {"data.label_noise": NOISE}
    cells = [
        Cell(f"noise {NOISE:g}", method, RECIPE, method, overrides)
        for method in ("baseline", "out", "mid", "pull_push", BEST)
    ]
    return Table("Label noise, term by term", tuple(cells))
