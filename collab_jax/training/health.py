"""Whether a run learns: its classifier's logits and dead units, and a line where it does not."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from collab_jax import data
from collab_jax.config import Config
from collab_jax.data import DataInfo
from collab_jax.training.placement import Placement
from collab_jax.training.state import TrainState

__all__ = ["FIGURES", "Health", "guessing_error", "logit_scale", "not_finite", "not_learning"]

FIGURES = ("logit_scale", "dead_units_fc1", "dead_units_fc2")
"""Names of what is measured, as metrics.jsonl has them."""

_IMAGES = 64
_STEPS = 200  # Shorter epochs than this say too little.
_BETTER_THAN_GUESSING = 1.25


class Health:
    """Figures of the classifier on a fixed batch of training images, nothing dropped.

    Args:
      model: the network.
      info: of the data set.
      split: the training split.
      placement: of the variables.
    """

    def __init__(
        self, model: nn.Module, info: DataInfo, split: data.Split, placement: Placement
    ) -> None:
        def figures(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
            logits, captured = model.apply(
                variables,
                info.normalise(images),
                train=False,
                capture_intermediates=_is_hidden,
                mutable=["intermediates"],
            )
            hidden: Any = dict(captured or {}).get("intermediates", {}).get("classifier", {})
            dead = {
                f"dead_units_{name}": (output["__call__"][0] <= 0).all(axis=0).mean()
                for name, output in hidden.items()
            }
            return {"logit_scale": logit_scale(logits), **dead}

        # Run once an epoch: quick to compile is what counts.
        self._figures = jax.jit(
            figures,
            out_shardings=placement.everywhere,
            compiler_options={"xla_backend_optimization_level": 0},
        )
        count = min(_IMAGES, len(split))
        self._images, _ = split.take(np.linspace(0, len(split) - 1, count).astype(np.int64))

    def __call__(self, variables: Mapping[str, Any]) -> dict[str, float | None]:
        """Measures variables.

        Args:
          variables: `params` and `batch_stats`.

        Returns:
          `logit_scale`, see the function; `dead_units_fc1` and `dead_units_fc2`, the fractions of
          the classifier's hidden units that are zero on every image of the batch, where the model
          has such layers. None for what is not finite.
        """
        found = jax.device_get(self._figures(dict(variables), self._images))
        return {
            name: float(found[name]) if math.isfinite(found[name]) else None
            for name in FIGURES
            if name in found
        }


def logit_scale(logits: jax.Array) -> jax.Array:
    """The root mean square of logits (B, m) after what tells no two images apart is taken away.

    That is the mean over images and the mean over classes: 0 where all images are given the same
    probabilities.
    """
    logits = logits - logits.mean(axis=0, keepdims=True)
    logits = logits - logits.mean(axis=1, keepdims=True)
    return jnp.sqrt(jnp.mean(jnp.square(logits)))


def guessing_error(labels: np.ndarray, num_classes: int, label_noise: float = 0.0) -> float:
    """The error in % of the best guess that does not look at the images.

    Args:
      labels: int (N,), of the training split.
      num_classes: m.
      label_noise: the probability with which a label is replaced by one uniform over all classes.
    """
    share = np.bincount(labels, minlength=num_classes).max() / len(labels)
    return 100.0 * (1 - ((1 - label_noise) * share + label_noise / num_classes))


def not_learning(
    config: Config, line: Mapping[str, Any], guessing: float, epoch_start: int
) -> str | None:
    """What to tell of a run whose training error is still that of guessing.

    It is judged once, at the first end of an epoch that has seen 200 steps or more.

    Args:
      config: of the run.
      line: the epoch's line of the training split in the metrics.
      guessing: the error in % of guessing.
      epoch_start: the step that the epoch began with.

    Returns:
      A line, or None where there is nothing to tell.
    """
    if not epoch_start < _STEPS <= line["step"]:
        return None
    error = line["top1_error"]
    if error is None or 100 - error > _BETTER_THAN_GUESSING * (100 - guessing):
        return None
    dead = [f"{line[name]:.0%}" for name in FIGURES[1:] if line.get(name) is not None]
    units = f"; {' and '.join(dead)} of the hidden units dead" if dead else ""
    return (
        f"not learning: training error {error:.2f}% after {line['step']} steps, {guessing:.2f}% by "
        f"guessing{units}. Likely remedies: a lower learning_rate (now {config.learning_rate:g}) "
        f"or --config.warmup_epochs=1 (now {config.warmup_epochs:g})"
    )


def not_finite(state: TrainState, terms: Sequence[str]) -> tuple[int, str] | None:
    """Where the first loss or gradient was that is not finite.

    Args:
      state: of the run.
      terms: names of the objective's terms.

    Returns:
      The step, and the terms and gradients; None where there was none.
    """
    fault = jax.device_get(state.fault)
    if fault["step"] < 0:
        return None
    bad_terms = [name for name, bad in zip(terms, fault["terms"], strict=True) if bad]
    paths = jax.tree_util.tree_leaves_with_path({"": state.params, "heads": state.heads})
    gradients = [
        "/".join(str(key.key) for key in path if key.key)
        for (path, _), bad in zip(paths, fault["gradients"], strict=True)
        if bad
    ]
    where = [f"term {', '.join(bad_terms)}"] if bad_terms else []
    if gradients:
        rest = f" and {len(gradients) - 1} more" if len(gradients) > 1 else ""
        where.append(f"gradient of {gradients[0]}{rest}")
    return int(fault["step"]), "; ".join(where)


def _is_hidden(module: nn.Module, method: str) -> bool:
    return method == "__call__" and module.path in (("classifier", "fc1"), ("classifier", "fc2"))
