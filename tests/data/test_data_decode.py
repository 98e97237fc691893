"""Images of any mode and size, decoded; damaged ones."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_folders import CLASSES, folders, load, pixels, save
from PIL import Image

from collab_jax.data import decode
from collab_jax.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def modes(folder):
    """One image of every kind under its name, and the RGB pixels that it stands for."""
    height, width = 6, 5
    rgb = pixels(0, height, width)
    grey = rgb[..., 0]
    alpha = np.where(np.arange(width) < 2, 0, 255).astype(np.uint8) + np.zeros_like(grey)
    on_white = np.where(alpha[..., None] == 0, 255, rgb)
    three = np.repeat(grey[..., None], 3, 2)
    rgba = np.dstack([rgb, alpha])
    palette = Image.fromarray(rgb).quantize(8)
    deep = (grey.astype(np.uint16) * 257).astype(np.uint16)
    expected = {
        "rgb.png": rgb,
        "rgb.bmp": rgb,
        "rgb.ppm": rgb,
        "rgb.tiff": rgb,
        "rgb.JPG": None,
        "grey.png": three,
        "bits.png": np.repeat(np.where(grey > 127, 255, 0)[..., None], 3, 2),
        "deep.png": three,
        "rgba.png": on_white,
        "rgba.webp": None,
        "grey-alpha.png": np.where(alpha[..., None] == 0, 255, three),
        "palette.png": np.asarray(palette.convert("RGB")),
        "palette.gif": np.asarray(palette.convert("RGB")),
        "cmyk.jpg": None,
        "rotated.jpg": None,
        "rotated.png": np.rot90(rgb, -1),
    }
    save(folder / "rgb.png", rgb)
    save(folder / "rgb.bmp", rgb)
    save(folder / "rgb.ppm", rgb)
    save(folder / "rgb.tiff", rgb)
    save(folder / "rgb.JPG", rgb)
    save(folder / "grey.png", grey)
    save(folder / "bits.png", Image.fromarray(grey > 127))
    save(folder / "deep.png", deep)
    save(folder / "rgba.png", rgba)
    Image.fromarray(rgba).save(folder / "rgba.webp", lossless=True)
    save(folder / "grey-alpha.png", Image.fromarray(np.dstack([grey, alpha]), "LA"))
    save(folder / "palette.png", palette)
    save(folder / "palette.gif", palette)
    save(folder / "cmyk.jpg", Image.fromarray(rgb).convert("CMYK"))
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned clockwise by a quarter.
    for name in ("rotated.jpg", "rotated.png"):
        Image.fromarray(rgb).save(folder / name, exif=exif)
    return expected


def test_every_kind_of_image_is_decoded_upright_to_rgb(tmp_path):
    for name, expected in modes(tmp_path).items():
        with open(tmp_path / name, "rb") as file:
            header = decode.read_header(file, name)
        with open(tmp_path / name, "rb") as file:
            found = decode.decode(file, 3, name)
        turned = "rotated" in name
        assert found.shape == ((5, 6, 3) if turned else (6, 5, 3)), name
        assert (header.height, header.width) == found.shape[:2], name
        assert header.grey == (name in ("grey.png", "bits.png", "deep.png", "grey-alpha.png")), name
        if expected is not None:
            assert np.array_equal(found, expected), name


def test_mixed_sizes_and_modes_train_once_resized(tmp_path):
    for place in range(12):
        shown = pixels(place, 10 + place, 30 - place, 3)
        save(tmp_path / "own" / CLASSES[place % 3] / f"{place}.png", shown)
    modes(tmp_path / "own" / "ant")
    with pytest.raises(
        UserError, match=r"data.image_size = 0: expected the side .* differ"
    ) as told:
        load(tmp_path / "own", tmp_path, test=0.2)
    assert "\n" not in str(told.value) and "(height x width)" in str(told.value)
    for size in (4, 24):
        dataset = load(tmp_path / "own", tmp_path, test=0.2, image_size=size)
        assert dataset.train.image_shape == (size, size, 3)
        assert len(dataset.train) + len(dataset.test) == 12 + 16


def test_grey_images_alone_have_one_channel(tmp_path):
    folders(tmp_path / "colour")
    for path in (tmp_path / "colour").rglob("*.png"):
        grey = Image.open(path).convert("L")
        save(tmp_path / "own" / path.relative_to(tmp_path / "colour"), grey)
    dataset = load(tmp_path / "own", tmp_path)
    assert dataset.train.image_shape == (8, 8, 1)
    first = np.asarray(Image.open(tmp_path / "own/train/ant/0.png"))
    assert np.array_equal(dataset.train.images[0, ..., 0], first)
    assert load(tmp_path / "own", tmp_path, image_size=12).train.image_shape == (12, 12, 1)


def test_the_middle_square_is_taken_and_reduced_by_area_or_enlarged():
    image = pixels(5, 12, 20)
    middle = image[:, 4:16]
    blocks = middle.reshape(4, 3, 4, 3, 3).astype(np.int64)
    assert np.array_equal(decode.square(image, 4), (blocks.sum((1, 3)) + 4) // 9)
    assert np.array_equal(decode.square(image, 12), middle)
    enlarged = decode.square(np.full((5, 9, 3), 77, np.uint8), 16)
    assert enlarged.shape == (16, 16, 3) and (enlarged == 77).all()


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", "cut", "flipped"])
def test_a_damaged_file_is_named(content, tmp_path):
    folders(tmp_path / "own")
    path = tmp_path / "own/train/bee/2.png"
    sound = path.read_bytes()
    damaged = {"cut": sound[:100], "flipped": sound[:60] + b"\0\0\0\0" + sound[64:]}
    path.write_bytes(content if isinstance(content, bytes) else damaged[content])
    with pytest.raises(UserError) as caught:
        load(tmp_path / "own", tmp_path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert not list((tmp_path / "data").rglob("*.npy"))
    path.write_bytes(sound)
    load(tmp_path / "own", tmp_path)


def test_damaged_bytes_anywhere_are_one_line_or_an_image(tmp_path):
    modes(tmp_path)
    random = np.random.default_rng(1)
    told = 0
    for path in sorted(tmp_path.iterdir()):
        sound = path.read_bytes()
        for _ in range(20):
            damaged = bytearray(sound)
            damaged[int(random.integers(len(sound)))] ^= int(random.integers(1, 256))
            damaged = (
                damaged[: int(random.integers(len(sound)))] if random.random() < 0.3 else damaged
            )
            path.write_bytes(damaged)
            try:
                with open(path, "rb") as file:
                    decode.read_header(file, path.name)
                    file.seek(0)
                    assert decode.decode(file, 3, path.name).dtype == np.uint8
            except UserError as error:
                assert str(error).startswith(path.name) and "\n" not in str(error)
                told += 1
    assert told > 80


MEMORY = """
import sys
from pathlib import Path
from collab_jax import data
from collab_jax.data import cache

def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024

seen, write = [], cache.NpyWriter.write

def watched(writer, rows):
    seen.append(anonymous())
    write(writer, rows)

cache.NpyWriter.write = watched
data.load(f"folder:{sys.argv[1]}", data_dir=sys.argv[2], test=0.1, image_size=16)
before = max(seen)
data.load(f"folder:{sys.argv[1]}", data_dir=sys.argv[2], test=0.1)
print(max(seen) - before)
"""


def test_decoding_takes_bounded_memory(tmp_path):
    shown = save(tmp_path / "one.bmp", pixels(0, 256, 256))
    for name in CLASSES[:2]:
        (tmp_path / "own" / name).mkdir(parents=True)
        for place in range(500):  # 1,000 links, 188 MiB decoded.
            (tmp_path / "own" / name / f"{place}.bmp").symlink_to(shown)
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "own"), str(tmp_path / "data")],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 90  # MiB: a chunk of 16 as single images and as one array.
