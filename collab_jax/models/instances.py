"""Several whole copies of any network, trained together (Song & Chai's multi-instance)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from collab_jax.models.branches import path_name

__all__ = ["Instances"]


@dataclass(frozen=True)
class Instances:
    """H copies of a network, each with parameters of its own; the first is the network itself.

    It is initialised and applied like a Linen module. Its parameters are the network's, and beside
    them those of copy i as `branch{i}_copy`, which `split_branches` parts from them.

    Attributes:
      network: any Linen module that returns logits (B, m) or (1, B, m).
      count: H.

    References:
      G. Song and W. Chai, "Collaborative Learning for Deep Neural Networks", 2018.
    """

    network: nn.Module
    count: int

    def init(self, key: PRNGKeyArray, *inputs: Any, **options: Any) -> dict[str, Any]:
        """Initialises every copy from a key of its own."""
        keys = jax.random.split(key, self.count)
        first, *others = [self.network.init(k, *inputs, **options) for k in keys]
        variables = dict(first)
        copies = {_copy(i): other["params"] for i, other in enumerate(others, start=1)}
        return {**variables, "params": {**variables["params"], **copies}}

    def apply(
        self,
        variables: Mapping[str, Any],
        *inputs: Any,
        rngs: Mapping[str, PRNGKeyArray],
        mutable: Sequence[str],
        **options: Any,
    ) -> tuple[Array, Any]:
        """Logits (H, B, m) of all copies, and the collections that the first one has updated."""
        names = {_copy(i) for i in range(1, self.count)}
        own = {name: tree for name, tree in variables["params"].items() if name not in names}
        logits, updates = [], []
        for number in range(self.count):
            params = own if number == 0 else variables["params"][_copy(number)]
            keys = {name: jax.random.fold_in(key, number) for name, key in rngs.items()}
            outputs, updated = self.network.apply(
                {**variables, "params": params}, *inputs, rngs=keys, mutable=[*mutable], **options
            )
            outputs = jnp.asarray(outputs)
            logits.append(outputs[0] if outputs.ndim == 3 else outputs)
            updates.append(updated)
        return jnp.stack(logits), updates[0]


def _copy(number: int) -> str:
    return path_name("copy", number)
