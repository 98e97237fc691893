"""One mesh over all devices: examples are split over it, all else is on every device."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from collab_jax.errors import UserError

__all__ = ["Placement", "check_batch"]

_AXIS = "data"


class Placement:
    """Where the arrays of a run are, over all devices of all its processes.

    The train step is one program over global arrays: means, batch statistics and similarity
    matrices are those of the whole batch, however many devices compute them.

    Args:
      devices: of every process, in the same order everywhere; None for all there are.

    Attributes:
      everywhere: the sharding of what every device holds.
    """

    def __init__(self, devices: Any = None) -> None:
        devices = np.array(jax.devices() if devices is None else devices).reshape(-1)
        self._mesh = Mesh(devices, (_AXIS,), axis_types=(AxisType.Auto,))
        self.everywhere = NamedSharding(self._mesh, PartitionSpec())

    @property
    def devices(self) -> int:
        """How many there are."""
        return self._mesh.size

    def split(self, axis: int = 0) -> NamedSharding:
        """The sharding that splits arrays over the devices along one axis."""
        return NamedSharding(self._mesh, PartitionSpec(*[None] * axis, _AXIS))

    def replicate(self, tree: Any) -> Any:
        """Puts arrays of the host, equal in every process, on every device."""
        return jax.tree.map(lambda leaf: self._place(leaf, self.everywhere), tree)

    def distribute(self, tree: Any, axis: int = 0) -> Any:
        """Puts on each device its part of arrays of the host; each process reads its own parts.

        Args:
          tree: a pytree of arrays, or of anything with `shape` that an index gives arrays of.
          axis: the axis of the examples, a multiple of the number of devices.
        """
        return jax.tree.map(lambda leaf: self._place(leaf, self.split(axis)), tree)

    def _place(self, leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) or not hasattr(leaf, "shape"):
            leaf = np.asarray(leaf)
        return jax.make_array_from_callback(
            leaf.shape, sharding, lambda index: np.asarray(leaf[index])
        )


def check_batch(batch_size: int, devices: int) -> None:
    """Raises a UserError unless a batch has equal parts for the devices."""
    if batch_size % devices:
        raise UserError(
            f"config.batch_size = {batch_size}: expected a multiple of the {devices} devices "
            "(CUDA_VISIBLE_DEVICES chooses fewer)"
        )
