"""The keys of what one would pick in place of the collaborations."""

from dataclasses import dataclass

from collab_jax.config.keys import ABOVE_0, WEIGHT, key

__all__ = ["HSIC", "Auxiliary", "DeCov", "PredSim", "RDrop", "SelfDistillation"]

_LAYERS = (
    "layers, counted from 0, that get a classifier; empty: those behind which the map shrinks, or "
    "all where none does"
)


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """Deep supervision."""

    weight: float = key(0.3, WEIGHT, "weight of the auxiliary classifiers' cross-entropy")
    layers: tuple[int, ...] = key((), "[0, 9999]", _LAYERS)


@dataclass(frozen=True, kw_only=True)
class SelfDistillation:
    """Classifiers that learn from the network's output ("Be Your Own Teacher")."""

    weight: float = key(1.0, WEIGHT, "weight of self-distillation")
    layers: tuple[int, ...] = key((), "[0, 9999]", _LAYERS)
    temperature: float = key(3.0, ABOVE_0, "temperature T of its soft part")
    alpha: float = key(0.3, "[0, 1]", "share of its soft part")
    hint: float = key(
        0.0, WEIGHT, "weight of the distance of features from the last layer's; 0: logits alone"
    )


@dataclass(frozen=True, kw_only=True)
class PredSim:
    """Local error signals."""

    weight: float = key(1.0, WEIGHT, "weight of the local error signals")
    beta: float = key(0.99, "[0, 1]", "share of the similarity loss beside the local classifier's")
    local_only: bool = key(
        False, "", "the layers learn from them alone; the output's loss reaches the classifier"
    )


@dataclass(frozen=True, kw_only=True)
class RDrop:
    """R-Drop."""

    weight: float = key(
        0.3, WEIGHT, "weight of the divergence beside the mean of both passes' cross-entropies"
    )


@dataclass(frozen=True, kw_only=True)
class HSIC:
    """The HSIC bottleneck."""

    weight: float = key(0.002, WEIGHT, "weight of the HSIC bottleneck")
    beta: float = key(500.0, WEIGHT, "weight of the dependence on the labels in it")
    sigma: float = key(5.0, ABOVE_0, "width of its kernel, of each dimension")


@dataclass(frozen=True, kw_only=True)
class DeCov:
    """Decorrelated features."""

    weight: float = key(0.1, WEIGHT, "weight of DeCov on the features before the classifier")
