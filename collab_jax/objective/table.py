"""A method is a table of weighted terms over what one training pass puts out (Sec. III)."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, PRNGKeyArray

from collab_jax import linen
from collab_jax.isolation.captured import Feature, Readout
from collab_jax.isolation.leaves import is_array, structure
from collab_jax.isolation.selection import Select
from collab_jax.linen.passes import Gradient
from collab_jax.models import init_variables, split_branches
from collab_jax.objective.dropping import Drop, dropped_behind
from collab_jax.objective.outputs import Outputs, ReadInside, tokens_of
from collab_jax.objective.reading import READ, readout_of
from collab_jax.objective.repeat import repeat, repeated_behind, to_branches

__all__ = ["Objective", "Term"]


@dataclass(frozen=True, kw_only=True)
class Term:
    """One line of the total loss; a term of your own is a subclass that defines `value`.

    Attributes:
      name: under which its unweighted value is logged and its parameters are kept.
      weight: a number, or an optax schedule of the step.
      of_parameters: whether `value` reads `outputs.params` alone, so that it need not be computed
        for each part of a batch.
      reads_through: whether it reads `outputs.through`, the layers' outputs whose gradient passes
        through the network, in place of local features.
    """

    name: str
    weight: float | optax.Schedule = 1.0
    of_parameters: ClassVar[bool] = False
    reads_through: ClassVar[bool] = False

    @property
    def stops_layers(self) -> bool:
        """Whether the gradient of the outputs stops at each layer, which this term alone moves."""
        return False

    @property
    def head(self) -> nn.Module | None:
        """A module that maps the features, whose parameters are `outputs.heads[name]`."""
        return None

    @property
    def reads_features(self) -> bool:
        """Whether the pass must capture local features; a term of yours without a head says so."""
        return self.head is not None and not self.reads_through

    @property
    def by_layer(self) -> bool:
        """Whether `value` reads no more of the features than `of_layer` gives of each.

        Where that is so for all terms that read features, each layer is read inside of it, which
        takes less memory, and `outputs.features` cannot be read.
        """
        return False

    def of_layer(self, head: Any, index: int, feature: Array) -> Any:
        """What the term reads of one layer's feature: few numbers, `outputs.of_layers(self)`.

        It runs inside of the layer's call, where it cannot make Linen modules.

        Args:
          head: `head` with its parameters, of this layer alone: see `models.ByLayer`; or None.
          index: the layer's number, counted from 0.
          feature: its local feature.

        Returns:
          A pytree of arrays.
        """
        raise NotImplementedError(f"{type(self).__name__} must define of_layer")

    def value(self, outputs: Outputs) -> Float[Array, ""]:
        """The term's unweighted value."""
        raise NotImplementedError(f"{type(self).__name__} must define value(outputs)")


@dataclass(frozen=True, eq=False)
class Objective:
    """The total loss of a method.

    Attributes:
      terms: its terms.
      layers: the layers whose features the terms read, as in `linen.capture`; None: what the model
        sows itself.
      then: modules that join a selected layer, as in `linen.capture`.
      feature: which array of a layer's output is its feature, as in `linen.capture`.
      logits: which array of what the network returns is its logits, such as
        `lambda outputs: outputs[0]`; None: it returns them alone.
      tokens: whether every token is an example of its own for the terms, with a label each: local
        classifiers then see one token, and L_pull-push compares tokens, of the whole batch.
      runs: H, how often every example runs through a network with dropout of its own, each time
        with other masks; its logits (H * B, ..., m) become branches for `Out`. Batch norm then
        takes its statistics over all of them.
      split_at: the module behind which the examples are repeated, a selection as `layers`: what
        comes before it runs once. None: they are repeated at the network's input.
      options: keyword arguments of every training pass, such as `train=True`.
      remat: whether the backward pass computes anew what terms read of each layer, such as by
        local heads and projections: less memory, more compute. It changes nothing where they read
        features behind the pass: with `then`, `feature`, layers=None or joint=False, of a scan or
        vmap, and beside a term that reads them whole, such as `PredSim`.
      drop: what the outputs of layers lose in training, such as blocks of their maps: a function of
        a key and an array.
      drop_at: behind which modules, a selection as `layers`.
      branch: the network to its training form with several heads, initialised and applied like a
        module, for methods that train copies of its parts; the copies' parameters are
        `heads["branches"]`.

    Raises:
      ValueError: if two terms share a name, `split_at` stands without `runs`, `drop` and `drop_at`
        without each other, or a term reads a gradient that another one stops.
    """

    terms: Sequence[Term]
    layers: Select | None = None
    then: Select | None = None
    feature: Feature | None = None
    logits: Callable[[Any], Any] | None = None
    tokens: bool = False
    runs: int = 1
    split_at: Select | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    remat: bool = False
    drop: Drop | None = None
    drop_at: Select | None = None
    branch: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise ValueError(f"terms: names {', '.join(names)}; expected each of them once")
        if self.runs < 1 or (self.runs == 1 and self.split_at is not None):
            raise ValueError(f"runs: {self.runs} given; expected 2 or more, or 1 without split_at")
        if (self.drop is None) != (self.drop_at is None):
            raise ValueError("drop, drop_at: one given; expected both or neither")
        through = [term.name for term in self.terms if term.reads_through]
        if through and self.gradient == "local_only":
            raise ValueError(
                f"terms: {', '.join(through)} beside one that stops the gradient at each layer; "
                "expected no term whose gradient passes through the network"
            )

    @property
    def captures(self) -> bool:
        """Whether a pass captures features of layers."""
        return any(term.reads_features or term.reads_through for term in self.terms)

    @property
    def gradient(self) -> Gradient:
        """What a loss on a captured feature moves, as in `linen.capture`."""
        if any(term.stops_layers for term in self.terms):
            return "local_only"
        if not any(term.reads_through for term in self.terms):
            return "local"
        return "both" if any(term.reads_features for term in self.terms) else "through"

    def init(
        self,
        key: PRNGKeyArray,
        model: nn.Module,
        variables: Mapping[str, Any],
        inputs: Any,
        **options: Any,
    ) -> dict[str, Any]:
        """Initialises the training-only parameters, from a model and a batch.

        Each term has its own key, so that a term's head does not depend on the other terms. The
        pass is traced for its shapes and not run.

        Args:
          key: a PRNG key.
          model: a Linen module.
          variables: its variables.
          inputs: a batch, or its shapes; a tuple for a model of several arguments.
          **options: of the training pass, as in `forward`.

        Returns:
          A dictionary of parameter trees by term; empty for terms without parameters.
        """
        heads: dict[str, Any] = {}
        if self.branch is not None:
            arguments = inputs if isinstance(inputs, tuple) else (inputs,)
            first = [jnp.zeros((1, *x.shape[1:]), x.dtype) for x in arguments]
            inference = {"train": False} if "train" in self.options else {}
            branched = init_variables(self.branch(model), key, *first, **inference)
            heads["branches"] = split_branches(branched["params"])[1]
        if self.captures:
            features = jax.eval_shape(
                lambda variables, inputs: self._pass(
                    model, variables, heads, inputs, ("batch_stats",), options
                )[1],
                variables,
                inputs,
            )
            shapes = next(iter(features.values()))
            if self.tokens:
                shapes = jax.eval_shape(
                    lambda features: [x.reshape(-1, x.shape[-1]) for x in features], shapes
                )
            heads.update(self.init_heads(key, shapes))
        return heads

    def init_heads(self, key: PRNGKeyArray, features: Sequence[Any]) -> dict[str, Any]:
        """Initialises the parameters of every term's head, from the features or their shapes.

        For a model that `init` cannot run, such as an NNX module.
        """
        zeros = tuple(jnp.zeros(feature.shape, feature.dtype) for feature in features)
        heads = {}
        for term in self.terms:
            if term.head is not None:
                term_key = jax.random.fold_in(key, zlib.crc32(term.name.encode()))
                heads[term.name] = init_variables(term.head, term_key, zeros).get("params", {})
        return heads

    def forward(
        self,
        model: nn.Module,
        variables: Mapping[str, Any],
        heads: Mapping[str, Any],
        inputs: Any,
        labels: Array,
        *,
        weights: Array | None = None,
        mutable: Sequence[str] = ("batch_stats",),
        **options: Any,
    ) -> tuple[Outputs, dict[str, Any]]:
        """Runs one training pass of a Linen model.

        Args:
          model: its logits are (B, ..., m) or (H, B, ..., m).
          variables: its variables.
          heads: the parameters that `init` made.
          inputs: a batch; a tuple for a model of several arguments, the first of which is the
            input that L_pull-push pushes away from.
          labels: int (B, ...) or probabilities (B, ..., m).
          weights: what each example or token counts in the means, (B, ...).
          mutable: the collections that the pass updates.
          **options: keyword arguments of `model.apply`, such as `rngs`; they go before the
            objective's own.

        Returns:
          The outputs for the terms, and the updated collections.
        """
        first = inputs[0] if isinstance(inputs, tuple) else inputs
        readout = readout_of(
            self.terms,
            heads,
            batch=first.shape[0] if self.runs > 1 else None,
            tokens=tokens_of(labels) if self.tokens else None,
        )
        logits, features, updated = self._pass(
            model, variables, heads, inputs, mutable, options, readout
        )
        if readout is not None:
            features["features"] = ReadInside()
        outputs = Outputs(
            logits,
            labels,
            first,
            params=variables["params"],
            heads=heads,
            weights=weights,
            **features,
        )
        return (outputs.per_token() if self.tokens else outputs), updated

    def _pass(
        self,
        model: nn.Module,
        variables: Mapping[str, Any],
        heads: Mapping[str, Any],
        inputs: Any,
        mutable: Sequence[str],
        options: Mapping[str, Any],
        readout: Readout | None = None,
    ) -> tuple[Array, dict[str, Any], dict[str, Any]]:
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        batch = arguments[0].shape[0]
        if self.runs > 1 and self.split_at is None:
            arguments = repeat(arguments, self.runs)
        options = {**self.options, **options}
        if self.branch is not None:
            model = self.branch(model)
            params = {**variables["params"], **heads["branches"]}
            variables = {**variables, "params": params}
        with ExitStack() as attached:
            if self.split_at is not None:
                attached.enter_context(repeated_behind(self.split_at, self.runs))
            if self.drop is not None and self.drop_at is not None:
                attached.enter_context(dropped_behind(self.drop_at, self.drop))
            returned, features, updated = self._run(
                model, variables, arguments, mutable, options, readout
            )
        logits = returned if self.logits is None else self.logits(returned)
        if not is_array(logits):
            raise ValueError(
                f"logits: {type(model).__name__} returns {structure(returned)}; expected one "
                "array, or logits=lambda outputs: and the array of it, such as outputs[0]"
            )
        if self.runs > 1:
            logits = to_branches(logits, self.runs, batch)
            features = {
                name: found if name == "readings" else tuple(x[:batch] for x in found)
                for name, found in features.items()
            }
        if self.branch is not None:
            # Copies never run in inference, so that nothing needs their running statistics.
            updated = {name: split_branches(tree)[0] for name, tree in updated.items()}
        return logits, features, dict(updated)

    def _run(
        self,
        model: Any,
        variables: Mapping[str, Any],
        arguments: tuple[Any, ...],
        mutable: Sequence[str],
        options: Mapping[str, Any],
        readout: Readout | None,
    ) -> tuple[Any, dict[str, Any], Any]:
        if not self.captures:
            logits, updated = model.apply(variables, *arguments, mutable=[*mutable], **options)
            return logits, {}, updated
        captured = linen.capture(
            model,
            variables,
            *arguments,
            layers=self.layers,
            then=self.then,
            feature=self.feature,
            mutable=mutable,
            gradient=self.gradient,
            readout=readout,
            remat=self.remat,
            **options,
        )
        if self.gradient == "through":
            return captured.outputs, {"through": captured.features}, captured.variables
        local: Any = captured.features
        found: dict[str, Any] = {}
        if self.gradient == "both":
            local, found["through"] = zip(*captured.features, strict=True)
        if readout is None:
            found["features"] = local
        else:
            local = checkpoint_name(local, READ)
            found["readings"] = {name: tuple(of[name] for of in local) for name in local[0]}
        return captured.outputs, found, captured.variables

    def __call__(
        self, outputs: Outputs, step: Array | int = 0
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Computes the total loss.

        Args:
          outputs: what `forward` returned, or `Outputs` that you fill in yourself.
          step: the training step, for terms whose weight is a schedule.

        Returns:
          The weighted sum, and every term's unweighted value by name.
        """
        values = {}
        total = jnp.zeros((), jnp.float32)
        for term in self.terms:
            with jax.named_scope(term.name):
                values[term.name] = term.value(outputs)
            weight = term.weight(step) if callable(term.weight) else term.weight
            total = total + weight * values[term.name]
        return total, values

    def split(self) -> tuple["Objective", "Objective"]:
        """The terms that a pass determines, and those of the parameters alone.

        Their totals add up to the whole. A train step computes the second part once for all parts
        of a batch, after the backward pass has released its activations.
        """
        of_pass = [term for term in self.terms if not term.of_parameters]
        of_parameters = [term for term in self.terms if term.of_parameters]
        return replace(self, terms=of_pass), replace(self, terms=of_parameters)
