"""Weights for configs/small_cifar10_vgg16.py, all keys of a method at once, by validation error.

Command, for baseline (its dropout), out, mid, out+mid+pull_push or another sum of terms:
    python -m collab_jax.study.search --search configs/searches/small_cifar10.py:out+mid \\
        --out runs/search/out+mid --threads 1

`cifar10.npz` lies in the folder where it is started. Start it twice with the same folder for two
processes. The first trial has the paper's values, the others are drawn by TPE. A trial trains for
half of the recipe's epochs. The seed is none of the study's, and 5,000 held-out images keep the
noise of one trial near half a point. Where an end of a range is chosen, widen the range.
"""

from collab_jax.study.search.spec import Range, Search

RECIPE = "small_cifar10_vgg16"
KEYS = {
    "baseline": {"model.dropout": (0.0, Range(0.0, 0.7, log=False))},
    "out": {
        "model.dropout": (0.5, Range(0.05, 0.7, log=False)),
        "out.alpha": (0.5, Range(0.05, 1.0, log=False)),
    },
    "mid": {"mid.weight": (1.0, Range(0.1, 30.0))},
    "pull_push": {"pull_push.weight": (1.28, Range(0.02, 10.0))},
    "kernel": {"kernel.weight": (0.001, Range(0.0001, 0.3))},
}
TRIALS = {"out+mid+pull_push": 24, "baseline": 4}


def get_search(method: str = "out+mid+pull_push") -> Search:
    """One trial of the paper's values, and the others by TPE."""
    keys = {key: value for term in method.split("+") for key, value in KEYS[term].items()}
    return Search(
        recipe=RECIPE,
        method=method,
        grid={key: (start,) for key, (start, _) in keys.items()},
        space={key: range_ for key, (_, range_) in keys.items()},
        trials=TRIALS.get(method, 8),
        overrides={
            "data.name": "cifar10.npz",
            "epochs": 40,
            "eval_every": 20,
            "checkpoint.every_epochs": 20,
        },
        seeds=(200,),
        warmup_epochs=20,
    )
