"""What each choice inside the terms does: the small-data study's recipe, five seeds.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 2 to 7.

Command:
    python -m collab_jax.study --study configs/studies/ablations.py --out runs/ablations \\
        --jobs 2 --threads 1 --reuse runs/reduced

Four questions, each against the row's own reference:
    does the consensus help, or the hard part (more branches, more heads) alone?
    should gradients flow into the soft targets?
    does Hinton's factor T^2 help?
    does a baseline get as far that trains longer, for the FLOPs of the terms?

Cost: see configs/studies/reduced.py for the time of a run; 60 runs, of which that study has 20.
"""

from collab_jax.study import Cell, Study, Table

RECIPE = "small_fashion_mnist_vgg16"
EPOCHS = 100
# FLOPs of a train step over baseline's, counted by XLA:
#   python -m collab_jax.study --study configs/studies/ablations.py --out runs/x --dry-run --flops
# (1.61 and 4.84 in version 0.1.0, whose runs are kept: its heads did not shrink with the network)
FLOPS = {"mid": 1.17, "out+mid+pull_push": 1.52}


def get_study() -> Study:
    """Fifteen cells, some of them the same run: twelve configurations."""
    return Study(
        title="Ablations: Fashion-MNIST, 1,000 training images, VGG-16 at width 1/8",
        tables=(_variants("out", "out.alpha", 1.0), _variants("mid", "mid.beta", 0.0), _longer()),
        seeds=(0, 1, 2, 3, 4),
        pictures=False,
    )


def _variants(method: str, share: str, hard_only: float) -> Table:
    """A term as it is, and with one choice changed at a time."""
    row = f"L_{method}"
    variants = {
        method: {},
        "hard part only": {share: hard_only},
        "targets not stopped": {f"{method}.stop_gradient": False},
        "with T^2": {f"{method}.scale_by_t2": True},
    }
    cells = [Cell(row, "baseline", RECIPE)]
    cells += [Cell(row, name, RECIPE, method, changes) for name, changes in variants.items()]
    note = "Differences are to the term as it is; negative means that the change helps."
    return Table(f"L_{method}: soft part, targets, T^2", tuple(cells), baseline=method, note=note)


def _longer() -> Table:
    cells, contrasts = [Cell("equal compute", "baseline", RECIPE)], []
    for method, factor in FLOPS.items():
        longer = {"epochs": round(EPOCHS * factor)}
        cells += [
            Cell("equal compute", method, RECIPE, method),
            Cell("equal compute", f"baseline for {method}'s FLOPs", RECIPE, overrides=longer),
        ]
        contrasts += [(method, f"baseline for {method}'s FLOPs")]
    return Table("Baseline trained longer", tuple(cells), contrasts=tuple(contrasts))
