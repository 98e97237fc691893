"""One key for each purpose: no two random draws of a run share one."""

import zlib
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

__all__ = ["key_for", "root_key"]

_GENERATOR = "threefry2x32"

Purpose = Literal["model", "heads", "augmentation", "cutout", "mix", "dropout", "label_noise"]
"""What a run draws random numbers for on the device."""


def root_key(seed: int) -> PRNGKeyArray:
    """A run's key, of one generator whatever JAX's default is."""
    return jax.random.key(seed, impl=_GENERATOR)


def key_for(purpose: Purpose, key: PRNGKeyArray | Array) -> PRNGKeyArray:
    """The key of one purpose, into which the step or the epoch is folded afterwards.

    Purpose first: a step and an epoch of one number folded into one key would give one key.

    Args:
      purpose: what is drawn.
      key: the run's key, or its data as a checkpoint holds it.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key, impl=_GENERATOR)
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))
