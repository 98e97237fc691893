"""A config's dropout of channels and blocks behind the layers of a network of ours."""

from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, PRNGKeyArray

from collab_jax.config import Config
from collab_jax.isolation import Selection
from collab_jax.models import Network, drop_block, spatial_dropout

__all__ = ["dropping"]

_STAGES = 2


def dropping(config: Config, model: Network) -> dict[str, Any]:
    """The options `drop` and `drop_at` of the config's objective; none where nothing drops.

    Args:
      config: a valid config.
      model: the network, the layers of whose last two stages it is.
    """
    rate, block_rate = config.model.spatial_dropout, config.model.drop_block
    size = config.model.drop_block_size
    if not rate and not block_rate:
        return {}
    layers = Selection(model.layers, "layers")
    last = [f"stage{len(model.stages) - i}/" for i in range(_STAGES)]

    def drop(key: PRNGKeyArray, x: Array) -> Array:
        of_channels, of_blocks = jax.random.split(key)
        x = spatial_dropout(of_channels, x, rate) if rate else x
        return drop_block(of_blocks, x, block_rate, size) if block_rate else x

    def drop_at(path: str, module: nn.Module) -> bool:
        # A tree's copies of a stage are named as their stage, after their own number.
        stage = path.split("_")[-1] if path.startswith("branch") else path
        return stage.startswith(tuple(last)) and layers.matches(path, module)

    return {"drop": drop, "drop_at": drop_at}
