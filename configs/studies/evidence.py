"""Does a term lower the error of a network that is trained out? CIFAR-10, clean and noisy labels.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 1 to 9.

Command, in a folder with cifar10.npz and cifar10_worse.npz (below):
    python -m collab_jax.study --study configs/studies/evidence.py --out runs/evidence \\
        --jobs 2 --threads 1

Protocol, written before the first run of this study.

Data. CIFAR-10, recompressed as JPEG, quality 75, averaged to 16x16: of each seed 2,000 training
images, 200 a class, 5,000 others to validate, all 10,000 test images. cifar10_worse.npz has
CIFAR-10N's `worse` labels (40% wrong, by people) in its training split, and so in the images that
validate.

Regime. configs/small_cifar10_vgg16.py, chosen by baseline's errors alone: results/README.md.

Weights. All keys of out+mid+pull_push at once by configs/searches/small_cifar10.py, 24 trials on
clean labels with a seed that is none of this study's; out and mid alone by 8 each; baseline's
dropout by 4. mid+pull_push+kernel has the combination's weights and the paper's for kernel. Noisy
labels choose nothing. Baseline and methods without L_out have no dropout; baseline with the dropout
that did best, .3, is a method of its own, so that L_out is not credited with dropout's gain.

Primary: top-1 error of the test split after the last epoch, paired by seed. Secondary: negative
log-likelihood and expected calibration error (15 bins) of the same predictions. Each is judged by
the paired t-test with Holm's method over a table's differences to baseline; the exact sign-flip p
stands beside it. The combinations beside a baseline of at least their FLOPs and their time, which
trains for twice as many epochs, and out and out+mid+pull_push beside baseline with dropout are a
family of their own.

Confirmatory: all methods below. What else is run is exploratory.

Seeds. Six. By the spread between 80 and 160 epochs of baseline over three seeds, a standard
deviation of the paired differences of 1.1 points, they find 1.6 points with 80% power. An effect is
called none where the 95% interval lies within 1 point.

Stages. Clean labels first, then `worse`, then redrawn noise .5 with the baselines and
out+mid+pull_push. A stage that is not run is missing from the report.
"""

from collab_jax.study import Cell, Study, Table

RECIPE = "small_cifar10_vgg16"
BEST, OTHER = "out+mid+pull_push", "mid+pull_push+kernel"
LONGER, DROPOUT = "baseline, twice as long", "baseline, dropout .3"
WEIGHTS = {
    BEST: {
        "model.dropout": 0.15,
        "out.alpha": 0.69,
        "mid.weight": 18.0,
        "pull_push.weight": 0.0235,
    },
    "mid": {"mid.weight": 25.0},
    "out": {"model.dropout": 0.2, "out.alpha": 0.5},
    OTHER: {"mid.weight": 18.0, "pull_push.weight": 0.0235},
}
ROWS = {
    "clean labels": (tuple(WEIGHTS), {"data.name": "cifar10.npz"}),
    "people's labels": (tuple(WEIGHTS), {"data.name": "cifar10_worse.npz"}),
    "redrawn noise .5": (
        (BEST,),
        {"data.name": "cifar10.npz", "data.label_noise": 0.5},
    ),
}


def get_study() -> Study:
    """A table for each kind of label, six seeds."""
    return Study(
        title="Trained out: 2,000 images of CIFAR-10, VGG-16 at width 1/4",
        tables=tuple(_table(row, methods, data) for row, (methods, data) in ROWS.items()),
        seeds=tuple(range(6)),
        note=__doc__ or "",
        pictures=False,
    )


def _table(row: str, methods: tuple[str, ...], data: dict) -> Table:
    longer = {"epochs": 160, "eval_every": 80, "checkpoint.every_epochs": 80}
    cells = [
        Cell(row, "baseline", RECIPE, overrides=data),
        Cell(row, LONGER, RECIPE, overrides={**data, **longer}),
        *(Cell(row, method, RECIPE, method, {**data, **WEIGHTS[method]}) for method in methods),
        Cell(row, DROPOUT, RECIPE, overrides={**data, "model.dropout": 0.3}),
    ]
    contrasts = [(method, LONGER) for method in methods if method in (BEST, OTHER)]
    contrasts += [(method, DROPOUT) for method in methods if method in ("out", BEST)]
    return Table(row, tuple(cells), contrasts=tuple(contrasts))
