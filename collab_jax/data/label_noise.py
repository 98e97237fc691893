"""Label noise, drawn anew every epoch (Sec. IV-A d) or once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

__all__ = ["noisy_labels"]

_GENERATOR = "threefry2x32"


def noisy_labels(
    labels: Int[Array, " batch"],
    indices: Int[Array, " batch"],
    epoch: Int[Array, ""] | int,
    *,
    key: PRNGKeyArray,
    level: float,
    num_classes: int,
) -> Int[Array, " batch"]:
    """Replaces a part of the labels by labels uniform over all classes.

    Whether and by what a label is replaced is a function of the key, the epoch and the example's
    index alone, not of the order of the data: a resumed run sees the same labels.

    Args:
      labels: (B,).
      indices: (B,), each example's index in the training split.
      epoch: the epoch, counted from 0; a constant for noise that is drawn once.
      key: the key of the run's label noise.
      level: probability in [0, 1] with which a label is replaced; as the new label is uniform over
        all m classes, a part 1/m of the replaced ones stay right.
      num_classes: m.

    Returns:
      (B,), of the labels' dtype.

    References:
      S. Fang and T. Lin, "Intra-Model Collaborative Learning of Neural Networks", Sec. IV-A d;
      G. Song and W. Chai, "Collaborative Learning for Deep Neural Networks", 2018.
    """
    if jax.random.key_impl(key) != _GENERATOR:
        # Other generators draw for a batch as a whole, so that its order would matter.
        words = jax.random.bits(key, (2,), jnp.uint32)
        key = jax.random.wrap_key_data(words, impl=_GENERATOR)
    epoch_key = jax.random.fold_in(key, epoch)

    def draw(index: Array) -> tuple[Array, Array]:
        key_replace, key_label = jax.random.split(jax.random.fold_in(epoch_key, index))
        label = jax.random.randint(key_label, (), 0, num_classes, dtype=labels.dtype)
        return jax.random.uniform(key_replace, dtype=jnp.float32) < level, label

    replace, drawn = jax.vmap(draw)(indices)
    return jnp.where(replace, drawn, labels)
