"""Weights for configs/small_fashion_mnist_vgg16.py, chosen by validation error.

Command, for baseline (its learning rate), out, mid, pull_push, kernel or a sum of them:
    python -m collab_jax.study.search \\
        --search configs/searches/small_fashion_mnist.py:mid --out runs/search/mid --threads 1

Start it twice with the same folder for two processes. A term alone is searched on a grid, then by
TPE around it; a sum of terms on a coarse grid over all of them, then by TPE. The seeds are none of
the study's, and 5,000 held-out images keep the noise of one trial near half a point.
"""

import itertools

from collab_jax.study.search.spec import Range, Search

RECIPE = "small_fashion_mnist_vgg16"
KEYS = {
    "baseline": ("learning_rate", (0.02, 0.05, 0.1, 0.2), Range(0.01, 0.4)),
    "out": ("out.alpha", (0.3, 0.5, 0.7, 0.9), Range(0.1, 1.0, log=False)),
    "mid": ("mid.weight", (0.1, 0.3, 1.0, 3.0), Range(0.03, 10.0)),
    "pull_push": ("pull_push.weight", (0.064, 0.192, 0.64, 1.92), Range(0.0192, 6.4)),
    "kernel": ("kernel.weight", (0.0001, 0.001, 0.01, 0.1), Range(0.00003, 0.3)),
}


def get_search(method: str = "mid") -> Search:
    """Four values of a single term's key, two of each key of a sum, and as many trials by TPE."""
    terms = method.split("+")
    values = {term: KEYS[term][1] if len(terms) == 1 else KEYS[term][1][1:3] for term in terms}
    points = len(list(itertools.product(*values.values())))
    return Search(
        recipe=RECIPE,
        method=method,
        grid={KEYS[term][0]: values[term] for term in terms},
        space={KEYS[term][0]: KEYS[term][2] for term in terms},
        trials=points + 4,
        overrides={"data.validation": 5000},
        seeds=(100, 101),
        warmup_epochs=50,
    )
