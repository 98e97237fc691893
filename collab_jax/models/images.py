"""What a network takes for images."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["check_normalised"]


def check_normalised(images: Float[Array | np.ndarray, "batch height width channels"]) -> None:
    """Refuses raw images, on which a network predicts nonsense without a word.

    Raises:
      ValueError: if they are integers.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images: {images.dtype} given; expected normalised ones, (images / 255 - mean) / std "
            "as `collab_jax.load(run_dir).normalise` gives them"
        )
