"""What one training pass puts out, for the terms to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from collab_jax.models.heads import at_least_one, params_of_layer

__all__ = ["Outputs", "ReadInside", "flat_tokens", "head_of", "of_layer", "tokens_of"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class ReadInside(Sequence[Any]):
    """Stands for features that terms have read inside of their layers, so that none are left."""

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> NoReturn:
        raise ValueError(
            "outputs.features: every term read its layers inside of them, so that none are left; "
            "a term that reads features whole has reads_features = True, and no by_layer"
        )

    def __getitem__(self, _: Any) -> Any:
        return len(self)


@flax.struct.dataclass
class Outputs:
    """What one training pass puts out.

    Attributes:
      logits: (B, ..., m), or (H, B, ..., m) with one row a branch; the axes between are tokens.
      labels: int (B, ...) or probabilities (B, ..., m).
      inputs: what L_pull-push pushes away from: normalised images (B, H, W, C), other features, or
        token numbers (B, L), compared as one-hot vectors.
      features: N local features in depth order, if any term reads them.
      params: the network's parameters.
      heads: parameters of the training-only parts, by term.
      weights: (B, ...), what each example or token counts in the means, such as 0 for padding;
        None: all the same. L_pull-push compares whole examples and takes no weights.
      through: the same layers' outputs, whose gradient passes through the network, if any term
        reads them.
      readings: what terms have read of the features inside of their layers, by term and then by
        layer. The features themselves are then left out: to read them raises an error. Features
        that are given by hand go before readings.
    """

    logits: Float[Array, "*branches_batch classes"]
    labels: Array
    inputs: Any = None
    features: tuple[Array, ...] | ReadInside = ()
    params: Mapping[str, Any] = flax.struct.field(default_factory=dict)
    heads: Mapping[str, Any] = flax.struct.field(default_factory=dict)
    weights: Array | None = None
    through: tuple[Array, ...] = ()
    readings: Mapping[str, tuple[Any, ...]] = flax.struct.field(default_factory=dict)

    @classmethod
    def of_parameters(cls, params: Mapping[str, Any]) -> "Outputs":
        """Outputs without a pass, for terms that read the parameters alone."""
        return cls(jnp.zeros((0, 1)), jnp.zeros((0,), jnp.int32), params=params)

    @property
    def branches(self) -> Float[Array, "branches batch *tokens classes"]:
        """The logits with their axis of branches, of length 1 where the pass has but one."""
        probabilities = jnp.issubdtype(self.labels.dtype, jnp.floating)
        axes = self.labels.ndim + (0 if probabilities else 1)
        classes = self.labels.shape[-1:] if probabilities else self.logits.shape[-1:]
        fits = self.logits.shape[-1:] == classes and not (probabilities and self.labels.ndim < 2)
        if self.logits.ndim not in (axes, axes + 1) or not fits:
            raise ValueError(
                f"logits: shape {self.logits.shape} with labels of shape {self.labels.shape}; "
                "expected (batch, ..., classes), or (branches, batch, ..., classes), for labels "
                "of whole numbers (batch, ...) or probabilities (batch, ..., classes)"
            )
        return self.logits if self.logits.ndim == axes + 1 else self.logits[None]

    def per_token(self) -> "Outputs":
        """The same with every token as an example of its own.

        Features (B, L, C) become (B * L, C), as logits, labels, inputs and weights do, for any
        number of axes of tokens.

        Raises:
          ValueError: if the labels have no axis of tokens, or features or inputs another one.
        """
        branches, tokens = self.branches, tokens_of(self.labels)

        def flat(name: str, x: Array) -> Array:
            return flat_tokens(name, x, tokens)

        def each(name: str, arrays: Sequence[Array]) -> tuple[Array, ...]:
            return tuple(flat(f"{name}[{index}]", x) for index, x in enumerate(arrays))

        return replace(
            self,
            logits=branches.reshape(len(branches), -1, branches.shape[-1]),
            labels=flat("labels", self.labels),
            inputs=None if self.inputs is None else flat("inputs", jnp.asarray(self.inputs)),
            features=each("features", self.features) if self.features else self.features,
            through=each("through", self.through),
            weights=None if self.weights is None else flat("weights", self.weights),
        )

    def head(self, term: Any, features: Sequence[Array]) -> Any:
        """What a term's head gives of features."""
        with jax.named_scope("heads"):
            return term.head.apply({"params": head_of(self.heads, term.name)}, features)

    def of_layers(self, term: Any) -> tuple[Any, ...]:
        """What a term reads of each layer: its `of_layer` of the features, or else its readings.

        Raises:
          ValueError: if there are neither.
        """
        if not self.features and term.name in self.readings:
            return self.readings[term.name]
        if not term.reads_features:
            raise ValueError(f"term {term.name!r} reads layers; expected reads_features = True")
        head = term.head
        params = {} if head is None else head_of(self.heads, term.name)
        with jax.named_scope("heads"):
            return tuple(
                of_layer(term, head, params_of_layer(params, index), index, feature)
                for index, feature in enumerate(at_least_one(self.features))
            )

    def mean(self, values: Float[Array, "batch *tokens"]) -> Float[Array, ""]:
        """The mean over examples and tokens, each counted by its weight.

        Raises:
          ValueError: if the weights have another shape than the values.
        """
        if self.weights is None:
            return values.mean()
        if self.weights.shape != values.shape:
            raise ValueError(
                f"weights: shape {self.weights.shape}; expected that of the examples and tokens, "
                f"{values.shape}"
            )
        weights = self.weights.astype(values.dtype)
        values = jnp.where(weights == 0, 0, values)
        return (weights * values).sum() / jnp.maximum(weights.sum(), jnp.finfo(values.dtype).tiny)


def of_layer(term: Any, head: Any, params: Mapping[str, Any], index: int, feature: Array) -> Any:
    """What a term reads of a layer's feature by its head, given the layer's parameters of it."""
    bound = None if head is None else head.bind({"params": params})
    return term.of_layer(bound, index, feature)


def tokens_of(labels: Array) -> tuple[int, ...]:
    """The shape (B, L, ...) of labels of tokens, of whole numbers or probabilities.

    Raises:
      ValueError: if they have no axis of tokens.
    """
    tokens = labels.shape[: labels.ndim - jnp.issubdtype(labels.dtype, jnp.floating)]
    if len(tokens) == 1:
        raise ValueError(
            f"labels: shape {labels.shape} with tokens as examples; expected a label for each "
            "token, (batch, tokens)"
        )
    return tokens


def flat_tokens(name: str, x: Array, tokens: tuple[int, ...]) -> Array:
    """An array (B, L, ...) with every token as an example, (B * L, ...)."""
    if x.shape[: len(tokens)] != tokens:
        raise ValueError(f"{name}: shape {x.shape}; expected {tokens} first, as the labels")
    return x.reshape(-1, *x.shape[len(tokens) :])


def head_of(heads: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The parameters of a term's head.

    Raises:
      ValueError: if there are none.
    """
    if name not in heads:
        there = ", ".join(heads) or "none"
        raise ValueError(
            f"heads: {there} given; expected those of the term {name!r}, which Objective.init makes"
        )
    return heads[name]
