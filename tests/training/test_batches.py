"""Reading a memory-mapped split: bounded memory, every example once, the same batches again."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest

from collab_jax import data
from collab_jax.training.batches import Feed
from collab_jax.training.placement import Placement

REPOSITORY = Path(__file__).resolve().parents[2]
COUNT, BATCH = 40_000, 256
SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Images on disk whose first bytes tell their number."""
    path = tmp_path_factory.mktemp("arrays") / "images.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (COUNT, *SHAPE))
    numbers = np.arange(COUNT, dtype="<u4").view(np.uint8).reshape(COUNT, 4)
    images.reshape(COUNT, -1)[:, :4] = numbers
    images.flush()
    labels = np.arange(COUNT, dtype=np.int32) % 10
    return data.Split(np.load(path, mmap_mode="r"), labels)


def feed_of(split, **options):
    return Feed(
        split, None, Placement(), batch_size=BATCH, seed=3, **{"resident": "never", **options}
    )


def numbers_of(batch):
    return np.ascontiguousarray(np.asarray(batch.images).reshape(-1, 3072)[:, :4]).view("<u4")[:, 0]


@pytest.mark.misuse
def test_memory_stays_within_the_bound_that_feed_states(split):
    chunk = 4
    feed = feed_of(split, chunk=chunk)
    images = chunk * BATCH * (3072 + 8)
    bound = 12 * COUNT + 2 * images
    tracemalloc.start()
    try:
        for _, batch in feed.inputs(0, 0):
            jax.block_until_ready(batch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < bound + (1 << 20)
    # The measurement sees what is gathered, and the set is far larger than the bound.
    assert peak > images and split.nbytes > 10 * bound


@pytest.mark.misuse
def test_an_epoch_has_every_example_once_in_the_order_of_seed_and_epoch(split):
    batches = [batch for _, batch in feed_of(split).inputs(1, 0)]
    assert len(batches) == COUNT // BATCH
    numbers = np.concatenate([numbers_of(batch) for batch in batches])
    order = data.epoch_order(COUNT, seed=3, epoch=1)
    np.testing.assert_array_equal(numbers, order[: len(numbers)])
    assert len(np.unique(numbers)) == len(numbers)
    for batch in batches[:3]:
        np.testing.assert_array_equal(batch.labels, numbers_of(batch) % 10)
        np.testing.assert_array_equal(batch.indices, numbers_of(batch))
    _, again = next(iter(feed_of(split).inputs(1, 100)))
    np.testing.assert_array_equal(again.images, batches[100].images)


@pytest.mark.slow
def test_the_scale_program_runs_and_takes_its_files_away(tmp_path):
    done = subprocess.run(
        [sys.executable, "tools/imagenet_scale.py", "--images=3000", "--batches=5", "--no-step"]
        + [f"--directory={tmp_path}"],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"feed, page cache warm", "feed, page cache cold"}
    for feed in found.values():
        assert feed["batches"] == 5 and feed["images_per_second"] > 0
        assert 0 < feed["load_seconds"] < feed["first_batch_seconds"]
        assert feed["anonymous_before"] <= feed["anonymous_peak"]
    assert not list(tmp_path.iterdir())
