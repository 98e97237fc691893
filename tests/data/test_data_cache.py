"""Cached arrays: whole or not there, read in bounded memory, and checked."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from collab_jax.data import cache
from collab_jax.data.arrays import area_downscale, target_shape
from collab_jax.errors import UserError
from collab_jax.files import atomic

REPOSITORY = Path(__file__).resolve().parents[2]


def write(folder, images=None, labels=None):
    images = np.arange(5 * 48, dtype=np.uint8).reshape(5, 4, 4, 3) if images is None else images
    labels = np.array([0, 1, 2, 0, 1], np.int32) if labels is None else labels
    with cache.writing(folder) as temporary:
        for split in ("train", "test"):
            with cache.NpyWriter(
                temporary / f"{split}_images.npy", images.shape, np.uint8
            ) as writer:
                writer.write(images[:2])
                writer.write(images[2:])
            np.save(temporary / f"{split}_labels.npy", labels)
        cache.describe(temporary, ("a", "b", "c"))
    return images, labels


def test_written_arrays_come_back_memory_mapped(tmp_path):
    folder = tmp_path / "arrays" / "x"
    images, labels = write(folder)
    assert cache.exists(folder)
    arrays = cache.open_arrays(folder)
    for split in ("train", "test"):
        found = getattr(arrays, f"{split}_images")
        assert isinstance(found, np.memmap) and np.array_equal(found, images)
        assert np.array_equal(getattr(arrays, f"{split}_labels"), labels)
    assert arrays.class_names == ("a", "b", "c")
    assert np.array_equal(np.load(folder / "train_images.npy"), images)


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with cache.writing(tmp_path / "x") as temporary:
            (temporary / "part").write_bytes(b"x")
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="1 rows were written, expected 2"):
        with cache.writing(tmp_path / "x") as temporary:
            with cache.NpyWriter(temporary / "part.npy", (2, 3), np.uint8) as writer:
                writer.write(np.zeros((1, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_folder_of_an_earlier_release_is_read(tmp_path):
    folder = tmp_path / "x"
    write(folder)
    new = cache.open_arrays(folder)
    description = folder / "arrays.json"
    kept = json.loads(description.read_text())
    description.write_text(json.dumps({key: kept[key] for key in ("class_names", "crc32")}))
    old = cache.open_arrays(folder)
    assert old.fingerprint == new.fingerprint == kept["fingerprint"]


def test_the_faster_process_wins(tmp_path):
    folder = tmp_path / "x"
    with cache.writing(folder) as slow:
        (slow / "slow").write_bytes(b"")
        images, _ = write(folder)
    assert np.array_equal(cache.open_arrays(folder).train_images, images)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_one_at_a_time_and_what_a_killed_process_left_is_removed(tmp_path):
    folder = tmp_path / "x"
    stale = atomic.temporary_neighbour(folder)
    stale.mkdir()
    (stale / "part.npy").write_bytes(b"x")
    inside = []

    def work():
        with cache.locked(folder):
            inside.append(1)
            assert sum(inside) == 1
            event.wait(0.05)
            inside.append(-1)

    event = threading.Event()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == [1, -1] * 4
    assert not stale.exists()


def test_a_process_killed_while_writing_leaves_no_arrays(tmp_path):
    folder = tmp_path / "x"
    program = (
        "import os, sys; from pathlib import Path; from collab_jax.data import cache\n"
        "with cache.locked(Path(sys.argv[1])), cache.writing(Path(sys.argv[1])) as temporary:\n"
        "    (temporary / 'part').write_bytes(b'x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=REPOSITORY, env=environment, check=False
    )
    assert list(tmp_path.glob(".x.new-*")) and not cache.exists(folder)
    with cache.locked(folder):
        write(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.lock"]


def test_damaged_folders_are_told_in_one_line(tmp_path):
    folder = tmp_path / "x"
    write(folder)
    sound = {path: path.read_bytes() for path in folder.iterdir()}
    assert len(sound) == 5
    damages = {path: [b"", content[:-1], content[:20]] for path, content in sound.items()}
    description = folder / "arrays.json"
    damages[description] += [b"[]", b"{}", b'{"class_names": [1, 2, 3]}', b"\xff"]
    # Another name of a class, another checksum.
    damages[description] += [sound[description].replace(b'"b"', b'"d"')]
    known = json.loads(sound[description])["sha256"]["test_labels"].encode()
    damages[description] += [sound[description].replace(known, known[::-1])]
    # Fewer classes than there are labels.
    damages[description] += [json.dumps({"class_names": ["a", "b"]}).encode()]
    labels = folder / "train_labels.npy"
    for other in (np.array([0, 1, 2, 0, -1], np.int32), np.zeros(4, np.int32), np.zeros(5)):
        np.save(labels, other)
        damages[labels].append(labels.read_bytes())
    images = folder / "train_images.npy"
    for other in (np.zeros((5, 4, 4, 1), np.uint8), np.zeros((5, 4, 4, 3)), np.array([{}], object)):
        np.save(images, other)
        damages[images].append(images.read_bytes())
    for path in (labels, images):
        path.write_bytes(sound[path])
    cache.open_arrays(folder)
    for path, contents in damages.items():
        for content in contents:
            if path == description and content == sound[path][:-1]:
                continue  # A final line break is no loss.
            path.write_bytes(content)
            with pytest.raises(UserError, match="cached arrays are damaged .* delete") as caught:
                cache.open_arrays(folder)
            assert str(caught.value).startswith(f"{folder}: ") and "\n" not in str(caught.value)
        path.write_bytes(sound[path])
    cache.open_arrays(folder)


def test_a_flipped_byte_of_the_arrays_is_told(tmp_path):
    folder = tmp_path / "x"
    write(folder)
    for path in folder.glob("*.npy"):
        sound = path.read_bytes()
        damaged = bytearray(sound)
        damaged[-1] ^= 1  # of the last pixel or label
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged .*; delete this folder") as caught:
            cache.open_arrays(folder)
        assert path.stem in str(caught.value)
        path.write_bytes(sound)
    cache.open_arrays(folder)


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from collab_jax.data import cache, dataset, order, statistics

def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024

arrays = cache.open_arrays(Path(sys.argv[1]))
before = anonymous()
count = len(arrays.train_images)
rows = np.arange(0, count, 2)
statistics.mean_and_std(arrays.train_images)
statistics.mean_and_std(arrays.train_images, rows)
split = dataset.Split(arrays.train_images, arrays.train_labels[rows], rows)
for start in range(0, 100_000, 500):
    split.take(order.epoch_order(len(split), seed=0, epoch=0)[start : start + 500])
print(anonymous() - before, arrays.train_images.nbytes / 2**20)
"""


def test_passes_over_a_large_file_take_bounded_memory(tmp_path):
    folder = tmp_path / "x"
    write(folder)
    # Sparse: no bytes on the disk.
    images = np.lib.format.open_memmap(
        folder / "train_images.npy", "w+", np.uint8, (200_000, 32, 32, 3)
    )
    images[::1000] = 200
    images.flush()
    np.save(folder / "train_labels.npy", np.arange(200_000, dtype=np.int32) % 3)
    np.save(folder / "test_images.npy", np.zeros((5, 32, 32, 3), np.uint8))
    cache.describe(folder, ("a", "b", "c"))
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    grown, size = map(float, result.stdout.split())
    assert size > 580
    assert grown < 100  # MiB: chunks of 16, their squares, an index array.


@pytest.mark.parametrize("size", [8, 5, 3, 1])
def test_area_downscale_is_the_mean_over_each_pixels_area(size):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 2), dtype=np.uint8)
    # Repeat so often that each new pixel covers whole cells.
    fine = images.repeat(size, 1).repeat(size, 2).astype(np.float64)
    mean = fine.reshape(3, size, 8, size, 8, 2).mean((2, 4))
    found = area_downscale(images, size, size)
    assert found.dtype == np.uint8 and found.shape == (3, size, size, 2)
    assert np.abs(found - mean).max() <= 0.5 + 1e-4


def test_sizes_that_images_cannot_be_reduced_to():
    assert target_shape((8, 8, 3), 0, "x") == (8, 8, 3)
    assert target_shape((8, 8, 3), 4, "x") == (4, 4, 3)
    for shape, size in (((8, 8, 3), 9), ((8, 6, 3), 4), ((8, 8, 3), -1)):
        with pytest.raises(UserError, match=f"data.image_size = {size}: .* those of x are 8 x"):
            target_shape(shape, size, "x")
