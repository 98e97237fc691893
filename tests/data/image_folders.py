"""Folders of images for tests, and whether they were read as they are."""

import numpy as np
from PIL import Image

from collab_jax import data

CLASSES = ("ant", "bee", "cat")


def pixels(seed, height=8, width=8, channels=3):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path)
    return path


def folders(root, counts=(("train", 4), ("test", 2)), **shape):
    """root/SPLIT/CLASS/N.png; returns images and labels by split, in the order of the arrays."""
    found, seed = {}, 0
    for split, count in counts:
        images, labels = [], []
        for label, name in enumerate(CLASSES):
            for place in range(count):
                seed += 1
                images.append(pixels(seed, **shape))
                labels.append(label)
                save(root / split / name / f"{place}.png", images[-1])
        found[split] = np.stack(images), np.array(labels)
    return found


def load(root, tmp_path, **arguments):
    return data.load(f"folder:{root}", data_dir=str(tmp_path / "data"), **arguments)


def check(dataset, found, test="test"):
    for split, name in ((dataset.train, "train"), (dataset.test, test)):
        assert np.array_equal(split.images, found[name][0])
        assert np.array_equal(split.labels, found[name][1])
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
