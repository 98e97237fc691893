"""Which term withstands label noise: the small-data study's noise .5, term by term.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Fig. 2 and
Eq. 1 to 7.

Command:
    python -m collab_jax.study --study configs/studies/noise_terms.py --out runs/noise_terms \\
        --jobs 2 --threads 1 --reuse runs/reduced

Cost: see configs/studies/reduced.py for the time of a run; 25 runs, of which that study has 15.
"""

from collab_jax.study import Cell, Study, Table

RECIPE = "small_fashion_mnist_vgg16"
METHODS = ("baseline", "out", "mid", "pull_push", "out+mid+pull_push")
NOISE = 0.5


def get_study() -> Study:
    """Five methods, five seeds each."""
    cells = [
        Cell(f"noise {NOISE:g}", method, RECIPE, method, {"data.label_noise": NOISE})
        for method in METHODS
    ]
    return Study(
        title="Label noise .5, term by term: Fashion-MNIST, 1,000 training images",
        tables=(Table("Label noise, term by term", tuple(cells)),),
        seeds=(0, 1, 2, 3, 4),
        pictures=False,
    )
