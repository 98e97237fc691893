"""What training changed inside a network: similarities through depth, correlation of filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from collab_jax import data, linen, losses
from collab_jax.config import Config
from collab_jax.data import DataInfo
from collab_jax.errors import RunError, UserError
from collab_jax.models import stage_kernels
from collab_jax.runs.start import warm_start
from collab_jax.training.build import create_experiment
from collab_jax.training.state import create_train_state

__all__ = ["diagnose", "filter_correlations", "pick_images"]

_CLASSES, _IMAGES_PER_CLASS, _FILTERS = 10, 8, 64


def diagnose(
    config: Config, info: DataInfo, split: data.Split, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Similarity matrices of a batch and correlations of filters, before and after training.

    A layer's features are normalised with the batch's own statistics in both, as the losses see
    them in training; its similarity matrix has the options of the config's `pull_push`.

    Args:
      config: of the run.
      info: of its data set.
      split: where the images come from; see `pick_images`.
      variables: the trained `params` and `batch_stats`.

    Returns:
      `labels` (B,), `similarity_inputs` and `similarity_labels` (B, B); for both `before` and
      `after` training `similarity_WHEN` (N, B, B) of N layers, `filters_WHEN` (K, F, F), the
      correlation of the first filters of the K kernels that L_kernel covers, and
      `filter_correlation_WHEN` (K,), the root mean square of all their off-diagonal entries.
      Without `before` where the run started from a file that is gone.
    """
    images, labels = split.take(pick_images(split.labels, info.num_classes))
    inputs = info.normalise(images)
    settings = config.pull_push
    inputs_as = settings.input_representation
    targets = jax.nn.one_hot(labels, info.num_classes)
    found = {
        "labels": labels,
        "similarity_inputs": losses.similarity_matrix(
            inputs,
            representation=settings.representation if inputs_as == "same" else inputs_as,
            center=settings.center,
        ),
        "similarity_labels": losses.similarity_matrix(targets, center=settings.center),
    }
    made = create_experiment(config, info, steps_per_epoch=1)

    @jax.jit
    def similarities(variables: Any) -> jax.Array:
        model, rngs = made.model, {"dropout": jax.random.key(0)}
        features = linen.capture(
            model, variables, inputs, layers=model.layers, train=True, rngs=rngs
        ).features
        return jnp.stack(
            [
                losses.similarity_matrix(
                    feature, representation=settings.representation, center=settings.center
                )
                for feature in features
            ]
        )

    start = _initial(config, info, made)
    for when, tree in (("before", start), ("after", variables)):
        if tree is not None:
            kernels = stage_kernels(dict(tree["params"]), config.kernel.stages)
            matrices = [filter_correlations(np.asarray(kernel)) for kernel in kernels]
            shown = min(_FILTERS, *(len(matrix) for matrix in matrices))
            found[f"similarity_{when}"] = similarities(dict(tree))
            found[f"filters_{when}"] = np.stack([matrix[:shown, :shown] for matrix in matrices])
            found[f"filter_correlation_{when}"] = np.array([_off_diagonal(m) for m in matrices])
    return {name: _compact(value) for name, value in found.items()}


def _initial(config: Config, info: DataInfo, made: Any) -> dict[str, Any] | None:
    """The variables before the first step, which the seed gives again."""
    if config.continue_from:
        return None
    state = create_train_state(
        made.model, made.objective, made.optimizer, info.image_shape, config.seed
    )
    if config.init_from:
        try:
            state = warm_start(state, config, info)
        except (UserError, RunError):
            return None
    return {"params": state.params, "batch_stats": state.batch_stats}


def pick_images(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The first eight images of each of the first ten classes, sorted by class."""
    rows = [
        np.flatnonzero(labels == label)[:_IMAGES_PER_CLASS]
        for label in range(min(num_classes, _CLASSES))
    ]
    return np.concatenate(rows)


def filter_correlations(kernel: np.ndarray) -> np.ndarray:
    """C of Eq. 10: the correlation of a convolution's output filters.

    Args:
      kernel: (height, width, inputs, outputs).

    Returns:
      (outputs, outputs); a constant filter has a row of zeros.
    """
    rows = kernel.astype(np.float64).reshape(-1, kernel.shape[-1]).T
    rows = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return rows @ rows.T


def _off_diagonal(matrix: np.ndarray) -> float:
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    return float(np.sqrt(np.mean(others**2))) if others.size else 0.0


def _compact(value: Any) -> np.ndarray:
    """Half precision for pictures: three digits are what a colour shows."""
    array = np.asarray(value)
    return array.astype(np.float16) if array.ndim >= 2 else array
