"""A small-data study for two CPU cores: real Fashion-MNIST, 1,000 training images.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks"; its Tables I
and II and Fig. 2 in small, beside Song and Chai's tree.

Command:
    python -m collab_jax.study --study configs/studies/reduced.py --out runs/reduced \\
        --jobs 2 --threads 1

Cost: 85 runs of 100 epochs (1,500 steps of 64) and 17 evaluations. Measured in processor time on a
core of an Intel Xeon, one thread a run, start and compilation with it:
    baseline                  100 epochs:  65 s (other work on both cores: 207 s on the clock)
    out+mid+pull_push         100 epochs: 141 s (257 s on the clock)
    baseline                  from 5 and 25 epochs: 18 s to start, 0.65 s an epoch
    out+mid+pull_push+kernel  from 5 and 25 epochs: 40 s to start, 1.57 s an epoch
    tree (4 heads)            25 epochs: 48 s
The clocks of all 85 runs added up to 12,236 s, 1.7 hours with two at a time, in part beside other
work. A run with two threads trains no faster than with one (2,000 to 3,000 against 2,400 images a
second for baseline): two runs at a time, of one thread each, do twice the work.
"""

from collab_jax.study import Cell, Study, Table

RECIPE = "small_fashion_mnist_vgg16"
BEST = "out+mid+pull_push"
NOISE = (0.0, 0.2, 0.5)


def get_study() -> Study:
    """Nine methods, and four of them with label noise, five seeds each."""
    return Study(
        title="Small-data study: Fashion-MNIST, 1,000 training images, VGG-16 at width 1/8",
        tables=(_methods(), _noise()),
        seeds=(0, 1, 2, 3, 4),
        note=(
            "Every seed has its own class-balanced 1,000 training images, initial backbone, order "
            "and augmentation, which all methods share. 14 x 14 pixels, 32-wide local heads, all "
            "10,000 test images."
        ),
    )


def _methods() -> Table:
    row = "1,000 images"
    singles = ("out", "mid", "pull_push", "kernel", BEST, "mid+pull_push+kernel")
    cells = [
        Cell(row, "baseline", RECIPE),
        Cell(row, "baseline (2x)", RECIPE, overrides={"model.width": 0.25}),
        *(Cell(row, method, RECIPE, method) for method in singles),
        Cell(row, "tree (4 heads)", RECIPE, "tree"),
    ]
    return Table("Methods without label noise", tuple(cells))


def _noise() -> Table:
    methods = {"baseline": "baseline", "out": "out", BEST: BEST, "tree (4 heads)": "tree"}
    cells = [
        Cell(
            f"noise {level:g}",
            column,
            RECIPE,
            method,
            {"data.label_noise": level} if level else {},
            x=level,
        )
        for level in NOISE
        for column, method in methods.items()
    ]
    return Table("Label noise", tuple(cells), x_label="label noise")
