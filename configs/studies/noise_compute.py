"""Label noise .5 at equal compute: the paper's combination beside a baseline trained longer.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Fig. 2 and
Eq. 1 to 9.

Command:
    python -m collab_jax.study --study configs/studies/noise_compute.py --out runs/noise_compute \\
        --jobs 2 --threads 1 --reuse runs/reduced

Compute is the FLOPs of a train step as XLA counts them. The runs that are kept are version 0.1.0's,
whose heads did not shrink with the network: 4.84 times baseline's FLOPs, 484 epochs.

Cost: see configs/studies/reduced.py for the time of a run; 15 runs, of which that study has 10; the
others train for 152 epochs.
"""

from collab_jax.study import Cell, Study, Table

RECIPE = "small_fashion_mnist_vgg16"
BEST = "out+mid+pull_push"
NOISE = 0.5
EPOCHS, DECAYS = 100, (30, 60, 80)
# The combination's over baseline's, as in ablations.py.
FACTORS = {"FLOPs": 1.52}


def get_study() -> Study:
    """Three cells in one row, five seeds each."""
    row, noise = f"noise {NOISE:g}", {"data.label_noise": NOISE}
    cells = [Cell(row, "baseline", RECIPE, overrides=noise), Cell(row, BEST, RECIPE, BEST, noise)]
    contrasts = []
    for measure, factor in FACTORS.items():
        longer = {
            "epochs": round(EPOCHS * factor),
            "decay_epochs": tuple(round(epoch * factor) for epoch in DECAYS),
        }
        column = f"baseline for {BEST}'s {measure}"
        cells += [Cell(row, column, RECIPE, overrides={**noise, **longer})]
        contrasts += [(BEST, column)]
    table = Table(
        "Baseline trained longer, label noise .5", tuple(cells), contrasts=tuple(contrasts)
    )
    return Study(
        title="Label noise .5 at equal compute: Fashion-MNIST, 1,000 training images",
        tables=(table,),
        seeds=(0, 1, 2, 3, 4),
        pictures=False,
    )
