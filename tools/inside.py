"""What a study's methods changed inside of the networks, beside baseline's, by seed.

Command:
    python tools/inside.py runs/evidence > inside.md

Of each run's last checkpoint, at a quarter, half, three quarters and the end of its depth:

- `probe`: test error in % of a linear classifier (ridge regression, penalty 100) on a layer's
  output, rectified and averaged over positions, fitted on the run's own training images and their
  labels in the data set (those of people where it has them; never with noise redrawn).
- `labels`, `inputs`: correlation of a layer's similarity matrix with the targets' and the inputs'
  (80 test images, Eq. 8), over the pairs of two images.
- `filters`: root mean square of the correlations between the filters of a convolution (Eq. 10),
  mean over the kernels that L_kernel covers, times 100.
- `agree`: percent of pairs of the four branches (K = 2) that predict the same class of a training
  image, all networks with dropout .2, which not all were trained with; `entropy`: of such a branch,
  in nats, mean over branches and images.
- `train`: error in % on the training images, with the labels that `probe` has.

Similarities and branches are those of training, with the batch's own statistics; `probe` and
`train` are taken with running averages. Intervals and p are the report's; Holm's method is over the
differences of a row, all figures together.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from checkpoint_tables import main
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import collab_jax
from collab_jax import linen
from collab_jax.runs.diagnostics import diagnose
from collab_jax.runs.load import Restored
from collab_jax.training.build import load_data

_BATCH = 500
_BRANCHES_PER_LAYER, _DROPOUT = 2, 0.2


def off_diagonal_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two symmetric matrices (B, B), over the pairs i < j."""
    pairs = np.triu_indices(len(first), 1)
    return float(np.corrcoef(first[pairs].astype(float), second[pairs].astype(float))[0, 1])


def agreement(predictions: np.ndarray) -> float:
    """Percent of pairs of branches (S, B) that predict the same class."""
    first, second = np.triu_indices(len(predictions), 1)
    return 100 * float(np.mean(predictions[first] == predictions[second]))


def _layer_outputs(restored: Restored, images: np.ndarray) -> list[np.ndarray]:
    """Of each layer (B, channels)."""
    model = restored.model

    @jax.jit
    def read(images: jax.Array) -> list[jax.Array]:
        captured = linen.capture(
            model,
            restored.variables,
            restored.normalise(images),
            layers=model.layers,
            train=False,
        )
        return [jax.nn.relu(x).mean((1, 2)) for x in captured.features]

    batches = [read(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _branches(restored: Restored, images: np.ndarray) -> np.ndarray:
    """Probabilities (K^2, B, m) of the branches."""
    model = restored.model.clone(dropout=_DROPOUT)

    @jax.jit
    def read(images: jax.Array, key: jax.Array) -> jax.Array:
        logits, _ = model.apply(
            restored.variables,
            restored.normalise(images),
            train=True,
            masks_per_layer=_BRANCHES_PER_LAYER,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return jax.nn.softmax(jnp.asarray(logits))

    starts = range(0, len(images), _BATCH)
    keys = jax.random.split(jax.random.key(0), len(starts))
    batches = [read(images[i : i + _BATCH], key) for i, key in zip(starts, keys, strict=True)]
    return np.concatenate(batches, axis=1)


def measure(run: Path) -> dict[str, float]:
    """The figures of a run's last checkpoint by name."""
    restored = collab_jax.load(run, "last")
    dataset = load_data(restored.config)
    (images, labels), (test_images, test_labels) = (
        split.take(np.arange(len(split))) for split in (dataset.train, dataset.test)
    )
    outputs, test_outputs = (_layer_outputs(restored, x) for x in (images, test_images))
    depth = len(outputs)
    shown = [max(round(depth * part), 1) - 1 for part in (0.25, 0.5, 0.75, 1)]
    found = {}
    for layer in shown:
        probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=100.0))
        probe.fit(outputs[layer], labels)
        error = np.mean(probe.predict(test_outputs[layer]) != test_labels)
        found[f"probe {layer + 1}"] = 100 * float(error)
    inside = diagnose(restored.config, restored.info, dataset.test, restored.variables)
    for name in ("labels", "inputs"):
        for layer in shown:
            found[f"{name} {layer + 1}"] = off_diagonal_correlation(
                inside["similarity_after"][layer], inside[f"similarity_{name}"]
            )
    found["filters"] = 100 * float(np.mean(inside["filter_correlation_after"]))
    branches = _branches(restored, images)
    found["agree"] = agreement(branches.argmax(-1))
    entropy = -np.sum(branches * np.log(np.maximum(branches, 1e-30)), axis=-1)
    found["entropy"] = float(entropy.mean())
    found["train"] = 100 * float(np.mean(restored.logits(images).argmax(-1) != labels))
    return found


if __name__ == "__main__":
    sys.exit(main(__doc__.splitlines()[0], measure))
