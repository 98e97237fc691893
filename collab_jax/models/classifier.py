"""The three-layer classifier with hierarchical dropout (Sec. III-A, Fig. 1d)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from collab_jax.models.initial import of_inputs

__all__ = ["HierarchicalDropoutClassifier"]


class HierarchicalDropoutClassifier(nn.Module):
    """Features -> FC -> ReLU -> K masks -> FC -> ReLU -> K masks -> FC, K^2 predictions.

    Each of the K branches of the first layer draws its own K masks in the second. Branches are
    folded into the batch for the matrix products, so that the parameters are those of an ordinary
    classifier with dropout, which is the case K = 1. In inference nothing is dropped.

    The matrix products are in float32 whatever the dtype of the features: they read each weight
    once, so that a copy of the weights in bfloat16 would cost more memory, and more traffic, than
    products in it save.

    Attributes:
      num_classes: m.
      width: units of each hidden layer; 0 leaves the last layer alone, which has nothing to drop.
      dropout: probability with which a unit is dropped.
    """

    num_classes: int
    width: int = 4096
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch channels"], *, train: bool, masks_per_layer: int = 1
    ) -> Float[Array, "*branches batch classes"]:
        """Returns logits (B, m), or (K^2, B, m) in training.

        Raises:
          ValueError: if masks are asked for and there is no hidden layer to mask.
        """
        if self.width == 0 and masks_per_layer > 1:
            raise ValueError(
                f"masks_per_layer: {masks_per_layer} given to a classifier without hidden layers "
                "(width 0); expected 1"
            )
        dtype = jnp.promote_types(features.dtype, jnp.float32)
        channels = features.shape[-1]

        def dense(units: int, inputs: int, name: str) -> nn.Dense:
            init = of_inputs(inputs)
            return nn.Dense(units, dtype=dtype, kernel_init=init, bias_init=init, name=name)

        last = dense(self.num_classes, self.width or channels, "fc3")
        if self.width == 0:
            logits = last(features)
            return logits[None] if train else logits
        first = dense(self.width, channels, "fc1")
        second = dense(self.width, self.width, "fc2")
        hidden = nn.relu(first(features))
        if not train:
            logits = last(nn.relu(second(hidden)))
        else:
            k, batch = masks_per_layer, features.shape[0]
            key_first, key_second = jax.random.split(self.make_rng("dropout"))
            hidden = self._mask(jax.random.split(key_first, (1, k)), hidden[None])
            hidden = nn.relu(second(hidden.reshape(k * batch, self.width)))
            hidden = hidden.reshape(k, batch, self.width)
            hidden = self._mask(jax.random.split(key_second, (k, k)), hidden)
            logits = last(hidden.reshape(k * k * batch, self.width))
            logits = logits.reshape(k * k, batch, self.num_classes)
        return logits

    def _mask(
        self, keys: Key[Array, "branches masks"], hidden: Float[Array, "branches batch width"]
    ) -> Float[Array, "branches masks batch width"]:
        keep_probability = 1.0 - self.dropout

        def mask_once(key: PRNGKeyArray, units: Array) -> Array:
            keep = jax.random.uniform(key, units.shape, jnp.float32) < keep_probability
            return jnp.where(keep, units / keep_probability, jnp.zeros_like(units))

        return jax.vmap(jax.vmap(mask_once, in_axes=(0, None)))(keys, hidden)
