"""Every image once, in one program that has no training-time parts."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from collab_jax import data, losses
from collab_jax.data import DataInfo
from collab_jax.training.placement import Placement
from collab_jax.training.step import count_wrong

__all__ = ["CONFIDENCE_BINS", "Evaluation", "Evaluator", "confidence_gaps", "eval_step"]


@dataclass(frozen=True)
class Evaluation:
    """The result over a split.

    Attributes:
      loss: mean cross-entropy, which is the negative log-likelihood of an image.
      top1_error: in %.
      top5_error: in %.
      calibration_error: expected calibration error in %, see `confidence_gaps`.
    """

    loss: float
    top1_error: float
    top5_error: float
    calibration_error: float

    def headline(self, top5: bool) -> float:
        """The error that a data set is judged by."""
        return self.top5_error if top5 else self.top1_error


CONFIDENCE_BINS = 15
"""Equal parts of [0, 1] in which the confidence of predictions is compared with their accuracy."""


def confidence_gaps(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Confidence less correctness, summed over the predictions of each bin of confidence.

    The expected calibration error of N images is the sum of the bins' absolute values over N.

    Args:
      logits: (B, m).
      labels: int (B,).
      mask: bool (B,), False for padding.

    Returns:
      float32 (`CONFIDENCE_BINS`,); bin b holds confidences in (b, b + 1] / `CONFIDENCE_BINS`.

    References:
      C. Guo et al., "On Calibration of Modern Neural Networks", 2017, Eq. 3, with their 15 bins.
    """
    confidence = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).max(axis=-1)
    bins = jnp.clip(jnp.ceil(confidence * CONFIDENCE_BINS).astype(int) - 1, 0, CONFIDENCE_BINS - 1)
    gaps = jnp.where(mask, confidence - (logits.argmax(axis=-1) == labels), 0.0)
    return jax.ops.segment_sum(gaps, bins, CONFIDENCE_BINS)


def eval_step(
    model: nn.Module,
    variables: dict[str, Any],
    inputs: jax.Array,
    labels: jax.Array,
    mask: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Sums over the images that are not padding, and all logits.

    Args:
      model: the network.
      variables: `params` and `batch_stats`.
      inputs: normalised images (B, H, W, C).
      labels: int (B,).
      mask: bool (B,), False for padding.

    Returns:
      `loss`, `top1_wrong`, `top5_wrong` and `confidence_gaps`, summed, and the logits (B, m).
    """
    logits: Any = model.apply(variables, inputs, train=False)
    each = {
        "loss": losses.hard_loss(logits, labels),
        "top1_wrong": count_wrong(logits, labels, 1),
        "top5_wrong": count_wrong(logits, labels, 5),
    }
    sums = {name: jnp.where(mask, value, 0.0).sum() for name, value in each.items()}
    return {**sums, "confidence_gaps": confidence_gaps(logits, labels, mask)}, logits


class Evaluator:
    """Evaluates variables on splits of one data set, in one compiled program.

    Args:
      model: the network.
      info: of the data set.
      batch_size: images in a step, rounded up to a multiple of the number of devices; the last
        batch is padded.
      placement: of the variables.
    """

    def __init__(
        self, model: nn.Module, info: DataInfo, batch_size: int, placement: Placement
    ) -> None:
        def step(variables: Any, images: jax.Array, labels: jax.Array, mask: jax.Array):
            return eval_step(model, variables, info.normalise(images), labels, mask)

        self._placement = placement
        self._step = jax.jit(step, out_shardings=placement.everywhere)
        self._batch_size = -(-batch_size // placement.devices) * placement.devices

    def __call__(
        self, variables: dict[str, Any], split: data.Split, *, keep_logits: bool = False
    ) -> tuple[Evaluation, np.ndarray | None]:
        """Evaluates one split.

        Args:
          variables: `params` and `batch_stats`.
          split: images and labels.
          keep_logits: whether to return the logits too.

        Returns:
          The result and, if asked for, logits (N, m).
        """
        reports, logits = [], []
        for start in range(0, len(split), self._batch_size):
            indices = np.arange(start, min(start + self._batch_size, len(split)))
            images, labels = split.take(indices)
            padding = self._batch_size - len(indices)
            images = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
            labels = np.pad(labels, (0, padding))
            mask = np.arange(self._batch_size) < len(indices)
            batch = self._placement.distribute((images, labels, mask))
            sums, batch_logits = self._step(variables, *batch)
            reports.append(sums)
            if keep_logits:
                logits.append(np.asarray(batch_logits)[: len(indices)])
        totals = jax.tree.map(
            lambda *values: np.sum(np.array(values, np.float64), axis=0), *jax.device_get(reports)
        )
        result = Evaluation(
            loss=float(totals["loss"]) / len(split),
            top1_error=100.0 * float(totals["top1_wrong"]) / len(split),
            top5_error=100.0 * float(totals["top5_wrong"]) / len(split),
            calibration_error=100.0 * float(np.abs(totals["confidence_gaps"]).sum()) / len(split),
        )
        return result, np.concatenate(logits) if keep_logits else None
