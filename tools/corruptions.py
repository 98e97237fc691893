"""The error of a study's last checkpoints on corrupted test images, beside baseline's, by seed.

Command:
    python tools/corruptions.py runs/evidence > corruptions.md

Four corruptions after D. Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", 2019, of the strength that they call 3 for CIFAR-10, at the
size that the network sees: Gaussian noise, the same for every run, Gaussian blur, brightness (here
added to red, green and blue, there to the value of HSV) and contrast. Runs whose checkpoint is not
there are left out. Intervals and p are the report's; Holm's method is over the differences of a
row, all corruptions together.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from checkpoint_tables import main
from scipy import ndimage

import collab_jax
from collab_jax import data


def _noise(images: np.ndarray) -> np.ndarray:
    return images + 0.08 * np.random.default_rng(0).standard_normal(images.shape)


def _blur(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images, (0, 0.7, 0.7, 0))


def _brightness(images: np.ndarray) -> np.ndarray:
    return images + 0.15


def _contrast(images: np.ndarray) -> np.ndarray:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + 0.4 * (images - mean)


CORRUPTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda images: images,
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
}


def corrupt(images: np.ndarray, name: str) -> np.ndarray:
    """uint8 images (B, H, W, C), corrupted; values beyond 0 and 255 are cut."""
    changed = CORRUPTIONS[name](images / 255)
    return np.round(255 * np.clip(changed, 0, 1)).astype(np.uint8)


def errors(run: Path, tests: dict[tuple, dict[str, np.ndarray]]) -> dict[str, float]:
    """Test error in % by corruption of a run's last checkpoint."""
    restored = collab_jax.load(run, "last")
    options = restored.config.data
    key = (options.name, options.image_size)
    if key not in tests:
        loaded = data.load(
            options.name,
            data_dir=options.dir,
            manual_dir=options.manual_dir,
            image_size=options.image_size,
        )
        images = np.asarray(loaded.test.images)
        tests[key] = {name: corrupt(images, name) for name in CORRUPTIONS}
        tests[key]["labels"] = np.asarray(loaded.test.labels)
    labels = tests[key]["labels"]
    return {
        name: 100 * float(np.mean(restored.logits(tests[key][name]).argmax(-1) != labels))
        for name in CORRUPTIONS
    }


if __name__ == "__main__":
    loaded: dict[tuple, dict[str, np.ndarray]] = {}
    sys.exit(main(__doc__.splitlines()[0], lambda run: errors(run, loaded)))
