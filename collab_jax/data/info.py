"""What a trained model must know of its data set."""

from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp

from collab_jax.data.augment import normalise
from collab_jax.data.dataset import Dataset

__all__ = ["DataInfo"]


@dataclass(frozen=True)
class DataInfo:
    """What a trained model must know of its data set; a checkpoint's record holds it.

    Attributes:
      num_classes: m.
      class_names: m names.
      image_shape: (H, W, C).
      mean: of each channel of the training split's pixels divided by 255.
      std: likewise.
      fingerprint: of the data set's content, see `Dataset`; empty where it was not recorded.
    """

    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str = ""

    @classmethod
    def of(cls, dataset: Dataset) -> "DataInfo":
        height, width, channels = dataset.train.image_shape
        return cls(
            num_classes=dataset.num_classes,
            class_names=tuple(dataset.class_names),
            image_shape=(height, width, channels),
            mean=tuple(float(value) for value in dataset.mean),
            std=tuple(float(value) for value in dataset.std),
            fingerprint=dataset.fingerprint,
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "DataInfo":
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
        }
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def normalise(self, images: Any) -> Any:
        """uint8 images (B, H, W, C) to what the model was trained on, float32."""
        return normalise(
            jnp.asarray(images), jnp.array(self.mean, jnp.float32), jnp.array(self.std, jnp.float32)
        )
