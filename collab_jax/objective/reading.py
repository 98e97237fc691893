"""What the terms of an objective read of a layer's feature, inside of the layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.tree_util import Partial
from jaxtyping import Array

from collab_jax.isolation.captured import Readout
from collab_jax.models.heads import params_of_layer
from collab_jax.objective.outputs import flat_tokens, head_of, of_layer

__all__ = ["READ", "SCOPE", "readout_of"]

READ = "read"
"""Name of what terms read, few numbers of a layer, which rematerialisation keeps."""

SCOPE = "collab_read_"
"""Before a term's name, that of the operations with which it reads."""


def readout_of(
    terms: Sequence[Any],
    heads: Mapping[str, Any],
    batch: int | None,
    tokens: tuple[int, ...] | None,
) -> Readout | None:
    """The `readout` of `linen.capture` that gives what each term reads of a layer, by its name.

    Args:
      terms: of an objective.
      heads: the parameters that its `init` made.
      batch: how many examples of the feature are read, where the pass repeats them; None: all.
      tokens: (B, L) where every token is an example; None where it is not.

    Returns:
      The readout; None where no term reads features, or one reads them whole.
    """
    reading = [term for term in terms if term.reads_features]
    if not reading or not all(term.by_layer for term in reading):
        return None
    modules = {term.name: term.head for term in reading}
    params = {name: {} if head is None else head_of(heads, name) for name, head in modules.items()}

    def readout(index: int) -> Any:
        def read(own: Mapping[str, Any], feature: Array) -> dict[str, Any]:
            if batch is not None:
                feature = feature[:batch]
            if tokens is not None:
                feature = flat_tokens(f"features[{index}]", feature, tokens)
            found = {}
            for term in reading:
                with jax.named_scope(SCOPE + term.name):
                    found[term.name] = of_layer(
                        term, modules[term.name], own[term.name], index, feature
                    )
            return found

        return Partial(read, {name: params_of_layer(tree, index) for name, tree in params.items()})

    return readout
