"""Restores a run's network without its training-time parts, and predicts with it.

python examples/restore_and_predict.py [RUN_DIR]

Without a run directory it trains a very small network on scikit-learn's digits first.
"""

import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

import collab_jax
from collab_jax import data
from collab_jax.config import override, recipes
from collab_jax.runs import loop
from collab_jax.runs.directory import read_config
from collab_jax.training import build


def train_small(directory):
    changes = {
        "epochs": "12",
        "eval_every": "6",
        "model.width": "0.125",
        "model.classifier_width": "64",
        "model.dropout": "0.2",
        "log.progress": "false",
        "log.tensorboard": "false",
    }
    loop.run(override(recipes.load("digits_vgg16", method="out"), changes), directory)


def main(directory):
    model, variables = collab_jax.load(directory, which="best")
    print(f"collections: {', '.join(sorted(variables))}")
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    print(f"{parameters:,} parameters")

    config = read_config(Path(directory))
    dataset = build.load_data(config)
    images, labels = dataset.test.images, np.asarray(dataset.test.labels)
    # The network expects what it was trained on: pixels less their mean, by their deviation.
    predict = jax.jit(
        lambda images: model.apply(variables, data.normalise(images, dataset.mean, dataset.std))
    )
    predictions = np.asarray(predict(images[:1000])).argmax(axis=-1)
    for index in range(5):
        names = dataset.class_names
        print(f"image {index}: {names[labels[index]]}, predicted {names[predictions[index]]}")
    print(f"test error {100 * (predictions != labels[:1000]).mean():.1f}%")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            train_small(temporary)
            main(temporary)
