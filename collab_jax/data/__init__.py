"""Image-classification data: loading, caching, subsets, order, and augmentation inside jit."""

from collab_jax.data.augment import augment, cutout, normalise
from collab_jax.data.dataset import Dataset, Split, load
from collab_jax.data.info import DataInfo
from collab_jax.data.mix import mix
from collab_jax.data.order import epoch_order

__all__ = [
    "DataInfo",
    "Dataset",
    "Split",
    "augment",
    "cutout",
    "epoch_order",
    "load",
    "mix",
    "normalise",
]
