"""Feeds a made-up set of ImageNet32's size from disk: memory, images a second, the first batch.

    python tools/imagenet_scale.py                 1,281,167 images; 3.9 GB of disk, given back
    python tools/imagenet_scale.py --grain         also the same array through grain

The set is laid out as the cache of `imagenet_resized/32x32` and read as a run reads it, by
`collab_jax.data.load` and `collab_jax.training.batches.Feed` with data.resident=never. Each
measurement is a process of its own. Memory is RssAnon: pages of the mapped file belong to the page
cache, which the system takes back.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

from collab_jax import config as config_lib  # noqa: E402
from collab_jax import data  # noqa: E402
from collab_jax.data import cache, tfds_source  # noqa: E402

NAME = "imagenet_resized/32x32"
IMAGENET = 1_281_167
CLASSES = 1000
SHAPE = (32, 32, 3)


def make(root: Path, images: int) -> Path:
    """Writes the cached arrays of a set that TFDS never prepared, and their statistics."""
    builder = tfds_source._builder(NAME, root)
    folder = root / "arrays" / Path(builder.data_dir).relative_to(root)
    generator = np.random.default_rng(0)
    with cache.locked(folder), cache.writing(folder) as temporary:
        for part, count in (("train", images), ("test", min(50_000, images))):
            with cache.NpyWriter(
                temporary / f"{part}_images.npy", (count, *SHAPE), np.uint8
            ) as writer:
                for start in range(0, count, 8192):
                    size = (min(8192, count - start), *SHAPE)
                    writer.write(
                        np.frombuffer(generator.bytes(math.prod(size)), np.uint8).reshape(size)
                    )
            labels = generator.integers(0, CLASSES, count, np.int32)
            np.save(temporary / f"{part}_labels.npy", labels)
        cache.describe(temporary, tuple(map(str, range(CLASSES))))
    data.load(NAME, data_dir=str(root))
    return folder


def forget(folder: Path) -> None:
    """Takes a folder's files out of the page cache."""
    for path in folder.glob("*.npy"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class AnonymousMemory:
    """The largest RssAnon of this process while the context is open, in bytes."""

    def __enter__(self) -> "AnonymousMemory":
        self.before = self.peak = self.now()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.peak = max(self.peak, self.now())

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


def measure_feed(root: Path, batch_size: int, batches: int) -> dict[str, Any]:
    """From `data.load` to the last of some batches on the device."""
    import jax

    from collab_jax.data import DataInfo
    from collab_jax.training import build
    from collab_jax.training.batches import Feed
    from collab_jax.training.placement import Placement

    config = _config(batch_size)
    jax.block_until_ready(jax.device_put(np.zeros(1)))
    with AnonymousMemory() as memory:
        began = time.perf_counter()
        dataset = data.load(NAME, data_dir=str(root))
        loaded = time.perf_counter() - began
        info = DataInfo.of(dataset)
        steps = len(dataset.train) // batch_size
        settings = build.create_experiment(config, info, steps).settings
        feed = Feed(
            dataset.train,
            settings,
            Placement(),
            batch_size=batch_size,
            seed=0,
            resident="never",
        )
        inputs = iter(feed.inputs(0, 0))
        jax.block_until_ready(next(inputs))
        first = time.perf_counter() - began
        began, count = time.perf_counter(), 0
        # A batch is dropped as the next one is there, as after its step.
        for _, batch in inputs:
            jax.block_until_ready(batch)
            count += 1
            if count == batches:
                break
        seconds = time.perf_counter() - began
    return {
        "load_seconds": loaded,
        "first_batch_seconds": first,
        "images_per_second": count * batch_size / seconds,
        "batches": count,
        "anonymous_before": memory.before,
        "anonymous_peak": memory.peak,
    }


def measure_step(root: Path, batch_size: int) -> dict[str, Any]:
    """VGG-16's train step on this machine's CPU, on one batch."""
    import jax

    from collab_jax.data import DataInfo
    from collab_jax.training import build
    from collab_jax.training.state import Batch, create_train_state
    from collab_jax.training.step import train_step

    config = _config(batch_size)
    info = DataInfo(CLASSES, tuple(map(str, range(CLASSES))), SHAPE, (0.5,) * 3, (0.3,) * 3)
    parts = build.create_experiment(config, info, 1000)
    state = create_train_state(parts.model, parts.objective, parts.optimizer, info.image_shape, 0)
    generator = np.random.default_rng(0)
    batch = Batch(
        images=generator.integers(0, 256, (batch_size, *SHAPE), np.uint8),
        labels=generator.integers(0, CLASSES, batch_size, np.int32),
        indices=np.arange(batch_size, dtype=np.int32),
    )
    step = jax.jit(lambda state, batch: train_step(parts.settings, state, batch), donate_argnums=0)
    seconds = []
    for _ in range(3):  # the first one compiles
        began = time.perf_counter()
        state, report = step(state, batch)
        jax.block_until_ready(report)
        seconds.append(time.perf_counter() - began)
    return {"step_seconds": min(seconds[1:]), "images_per_second": batch_size / min(seconds[1:])}


def measure_grain(root: Path, batch_size: int, batches: int, way: str) -> dict[str, Any]:
    """The same array through grain, shuffled and batched, to NumPy arrays."""
    import grain

    dataset = data.load(NAME, data_dir=str(root))

    class Source:
        def __len__(self) -> int:
            return len(dataset.train)

        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            split = dataset.train
            return {"images": split.source[index], "labels": split.labels[index]}

    with AnonymousMemory() as memory:
        began, first = time.perf_counter(), 0.0
        if way == "DataLoader":
            sampler = grain.samplers.IndexSampler(
                len(dataset.train), shuffle=True, seed=0, num_epochs=1
            )
            batch = [grain.transforms.Batch(batch_size, drop_remainder=True)]
            loader: Any = grain.DataLoader(
                data_source=Source(), sampler=sampler, operations=batch, worker_count=0
            )
        else:
            mapped = grain.MapDataset.source(Source()).shuffle(seed=0)
            loader = mapped.batch(batch_size, drop_remainder=True)
            if way == "MapDataset.to_iter_dataset":
                loader = loader.to_iter_dataset()
        count = 0
        # Its threads read far ahead: what they read before the first batch must count.
        for _ in loader:
            count += 1
            first = time.perf_counter() - began if count == 1 else first
            if count == batches:
                break
        seconds = time.perf_counter() - began
    return {
        "first_batch_seconds": first,
        "images_per_second": count * batch_size / seconds,
        "anonymous_before": memory.before,
        "anonymous_peak": memory.peak,
    }


def _config(batch_size: int) -> Any:
    changes = {"data.name": NAME, "batch_size": batch_size, "data.resident": "never"}
    return config_lib.parse(config_lib.recipe("baseline", changes))


def in_child(what: str, root: Path, *arguments: Any) -> dict[str, Any]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, str(root), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _child(what: str, root: str, *arguments: str) -> dict[str, Any]:
    numbers = [int(text) for text in arguments if text.isdigit()]
    if what == "feed":
        return measure_feed(Path(root), *numbers)
    if what == "step":
        return measure_step(Path(root), *numbers)
    return measure_grain(Path(root), *numbers, way=arguments[-1])


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGENET)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--directory", help="where the set is made (default: a temporary one)")
    parser.add_argument("--no-step", action="store_true", help="leave VGG-16's step out")
    parser.add_argument("--grain", action="store_true", help="compare with grain")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        found = _child(*options.measure)
        print(json.dumps(found))
        return found
    root = Path(tempfile.mkdtemp(prefix="imagenet-scale-", dir=options.directory))
    results: dict[str, Any] = {}
    try:
        needed = (options.images + 50_000) * math.prod(SHAPE)
        free = shutil.disk_usage(root).free
        if free < 1.2 * needed:
            raise SystemExit(f"error: {root}: {free >> 20} MiB free, expected {needed >> 20} MiB")
        began = time.perf_counter()
        folder = make(root, options.images)
        print(f"made in {time.perf_counter() - began:.0f} s: {folder}", flush=True)
        for name, cold in (("feed, page cache warm", False), ("feed, page cache cold", True)):
            if cold:
                forget(folder)
            results[name] = in_child("feed", root, options.batch_size, options.batches)
            _show(name, results[name])
        if not options.no_step:
            results["VGG-16 step"] = in_child("step", root, options.batch_size)
            _show("VGG-16 step", results["VGG-16 step"])
        for way in (
            ("MapDataset", "MapDataset.to_iter_dataset", "DataLoader") if options.grain else ()
        ):
            batches = max(1, options.batches // (20 if way == "DataLoader" else 2))
            name = f"grain {way}"
            results[name] = in_child("grain", root, options.batch_size, batches, way)
            _show(name, results[name])
    finally:
        shutil.rmtree(root)
    print(json.dumps(results))
    return results


def _show(name: str, found: dict[str, Any]) -> None:
    texts = []
    for key, value in found.items():
        if key.startswith("anonymous"):
            texts.append(f"{key} {value / 2**20:,.0f} MiB")
        else:
            texts.append(f"{key} {value:,.3g}" if value < 100 else f"{key} {value:,.0f}")
    print(f"{name}: {', '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
