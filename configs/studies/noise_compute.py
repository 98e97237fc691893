"""Label noise .5 at equal compute: the paper's combination beside a baseline trained longer.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Fig. 2 and
Eq. 1 to 9.

Command:
    python -m collab_jax.study --study configs/studies/noise_compute.py --out runs/noise_compute \\
        --jobs 2 --threads 1 --reuse runs/reduced

Two measures of compute: FLOPs of the train step as XLA counts them, and time by throughput. On a
network this narrow they part: what the terms add runs faster than the narrow convolutions.

Cost: see configs/studies/reduced.py for the time of a run; 20 runs, of which that study has 10; the
others train for 484 and 330 epochs of 0.65 s.
"""

from collab_jax.study import Cell, Study, Table

RECIPE = "small_fashion_mnist_vgg16"
BEST = "out+mid+pull_push"
NOISE = 0.5
EPOCHS, DECAYS = 100, (30, 60, 80)
# The combination's over baseline's: FLOPs of a train step as in ablations.py, and baseline's
# throughput over the combination's in the small-data study, without noise.
FACTORS = {"FLOPs": 4.84, "time": 3.3}


def get_study() -> Study:
    """Four cells in one row, five seeds each."""
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
