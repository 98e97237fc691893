"""Does what configs/studies/evidence.py shows hold at half the learning rate? Exploratory.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 1 to 9.

Command, in a folder with cifar10.npz (configs/studies/evidence.py):
    python -m collab_jax.study --study configs/studies/evidence_rate.py \\
        --out runs/evidence_rate --jobs 2 --threads 1

Written before the first run of this study, and after those of configs/studies/evidence.py, which
has rate .05: of baseline's rates, chosen on validation images, .1 and more were worse and lower
ones had not been tried. With another seed and 40 epochs baseline errs by 58.04% of the validation
images at .05 and by 56.72% at .025. So baseline, its longer twin, mid and out+mid+pull_push train
once more at .025, the terms' weights as they were found at .05: what is wrong there favours
baseline. Clean labels; the test error after the last epoch, paired by seed; Holm's method as
there.
"""

from dataclasses import replace

from collab_jax.study import Study, Table, load_study

ROW = "clean labels, rate .025"
LONGER = "baseline, twice as long"
METHODS = ("mid", "out+mid+pull_push")


def get_study() -> Study:
    """Four of the study's methods, six seeds."""
    evidence = load_study("evidence")[1]
    cells = [
        replace(cell, row=ROW, overrides={**cell.overrides, "learning_rate": 0.025})
        for cell in evidence.tables[0].cells
        if cell.column in ("baseline", LONGER, *METHODS)
    ]
    contrasts = tuple((method, LONGER) for method in METHODS)
    return Study(
        title="Trained out, at half the learning rate: 2,000 images of CIFAR-10, VGG-16",
        tables=(Table(ROW, tuple(cells), contrasts=contrasts),),
        seeds=evidence.seeds,
        note=__doc__ or "",
        pictures=False,
    )
