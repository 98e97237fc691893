"""Is it the locality of L_mid that helps? Auxiliary classifiers beside it, new seeds.

Paper: S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Eq. 5 to 7;
C.-Y. Lee et al., "Deeply-Supervised Nets".

Command, in a folder with cifar10.npz and cifar10_worse.npz (configs/studies/evidence.py):
    python -m collab_jax.study --study configs/studies/evidence_auxiliary.py \\
        --out runs/evidence_auxiliary --jobs 2 --threads 1

Protocol, written before the first run of this study, and after those of
configs/studies/evidence_exploratory.py: auxiliary classifiers, whose gradient passes through all
layers below, ended 3.23 points below baseline over seeds 0, 1 and 2, and 1.41 below mid, which
three seeds do not tell apart.

Data, regime and judgement are those of configs/studies/evidence.py. Seeds 6 to 11, which no search
and no study has used: baseline, its longer twin and mid are run once more, so that their
differences on clean labels replicate that study with other subsets of the images and other initial
weights. mid has the weight that was searched for it, 25; auxiliary has its own by default, .3,
nothing searched, so that what is wrong there favours mid.

Primary: top-1 error of the test split after the last epoch, paired by seed, on clean labels:
auxiliary beside mid. Secondary: the differences to baseline, mid and auxiliary beside the longer
twin, people's labels, and negative log-likelihood and calibration error. Holm's method over the
differences to baseline of a table, and over its direct ones.

With a standard deviation of 1.7 points of the paired difference, that of the three seeds, six find
2.5 points with 80% power. The two are called equal where the 95% interval lies within 1 point.

Stages. Clean labels first, then people's, where longer training was not shown to change anything
and is left out.
"""

from dataclasses import replace

from collab_jax.study import Cell, Study, Table, load_study

LONGER, AUXILIARY = "baseline, twice as long", "auxiliary classifiers"


def get_study() -> Study:
    """A table for each kind of label, six seeds."""
    evidence = load_study("evidence")[1]
    clean, people = evidence.tables[:2]
    return Study(
        title="Local or not: 2,000 images of CIFAR-10, VGG-16 at width 1/4",
        tables=(_table(clean, ("baseline", LONGER, "mid")), _table(people, ("baseline", "mid"))),
        seeds=tuple(range(6, 12)),
        note=__doc__ or "",
        pictures=False,
    )


def _table(of: Table, columns: tuple[str, ...]) -> Table:
    cells = [cell for cell in of.cells if cell.column in columns]
    baseline = cells[0]
    auxiliary = Cell(
        baseline.row, AUXILIARY, baseline.recipe, "auxiliary", dict(baseline.overrides)
    )
    direct = [(AUXILIARY, "mid")]
    if LONGER in columns:
        direct += [("mid", LONGER), (AUXILIARY, LONGER)]
    return replace(of, cells=(*cells, auxiliary), contrasts=tuple(direct))
