"""Images in files: folders, a CSV, any mode and size, damaged ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collab_jax import data
from collab_jax.data import decode
from collab_jax.errors import UserError

pytestmark = pytest.mark.smoke

REPOSITORY = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_a_folder_of_splits_and_classes(test, tmp_path):
    found = folders(tmp_path / "own", (("train", 4), (test, 2)))
    for _ in range(2):
        dataset = load(tmp_path / "own", tmp_path)
        check(dataset, found, test)
        assert dataset.class_names == CLASSES
        assert isinstance(dataset.train.source, np.memmap)


def test_a_folder_is_decoded_once_and_again_when_a_file_changes(tmp_path, monkeypatch):
    found = folders(tmp_path / "own")
    load(tmp_path / "own", tmp_path)
    monkeypatch.setattr("collab_jax.data.image_files.decode", None)
    check(load(tmp_path / "own", tmp_path), found)
    monkeypatch.undo()
    other = pixels(1000)
    save(tmp_path / "own/train/ant/0.png", other)
    os.utime(tmp_path / "own/train/ant/0.png", (1, 1))
    changed = load(tmp_path / "own", tmp_path)
    assert np.array_equal(changed.train.images[0], other)


def test_the_same_images_by_npz_are_the_same_data_set(tmp_path):
    found = folders(tmp_path / "own", height=16, width=16)
    (x_train, y_train), (x_test, y_test) = found["train"], found["test"]
    arrays = dict(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    np.savez(tmp_path / "own.npz", **arrays, class_names=np.array(CLASSES))
    table = tmp_path / "own.csv"
    lines = [
        f"own/{split}/{CLASSES[label]}/{place % count}.png,{CLASSES[label]},{split}"
        for split, count in (("train", 4), ("test", 2))
        for place, label in enumerate(found[split][1])
    ]
    table.write_text("path,label,split\n" + "\n".join(lines) + "\n")
    for size in (0, 4):
        loaded = [
            data.load(name, data_dir=str(tmp_path / "data"), image_size=size)
            for name in (str(tmp_path / "own.npz"), f"folder:{tmp_path / 'own'}", f"csv:{table}")
        ]
        for other in loaded[1:]:
            assert np.array_equal(other.train.images, loaded[0].train.images)
            assert np.array_equal(other.test.images, loaded[0].test.images)
            assert other.fingerprint == loaded[0].fingerprint
            assert other.class_names == CLASSES
    assert loaded[0].fingerprint != data.load(str(tmp_path / "own.npz")).fingerprint


def test_one_level_is_split_by_a_fraction_the_same_for_every_seed(tmp_path):
    found = folders(tmp_path, (("own", 10),))
    with pytest.raises(UserError, match="no test split, expected one, or data.test=0.2"):
        load(tmp_path / "own", tmp_path)
    first = load(tmp_path / "own", tmp_path, test=0.2)
    assert np.bincount(first.test.labels).tolist() == [2, 2, 2]
    assert np.bincount(first.train.labels).tolist() == [8, 8, 8]
    every = np.concatenate([first.train.images, first.test.images])
    assert {image.tobytes() for image in every} == {image.tobytes() for image in found["own"][0]}
    for seed in (1, 2):
        again = load(tmp_path / "own", tmp_path, test=0.2, validation=0.25, seed=seed)
        assert np.array_equal(again.test.images, first.test.images)
        assert again.fingerprint == first.fingerprint
        assert len(again.validation) == 6
    assert len(load(tmp_path / "own", tmp_path, test=0.5).test) == 15


def test_a_training_folder_alone_is_split_as_well(tmp_path):
    folders(tmp_path / "own", (("train", 5),))
    assert len(load(tmp_path / "own", tmp_path, test=0.2).test) == 3


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


def test_folders_that_do_not_do(tmp_path):
    def message(**arguments):
        with pytest.raises(UserError) as caught:
            load(tmp_path / "own", tmp_path, **arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert message() == f"data.name = folder:{tmp_path}/own: no such folder"
    (tmp_path / "own").mkdir()
    assert message() == f"{tmp_path}/own: no folders, expected one for each class"
    folders(tmp_path / "own")
    assert "data.test = 0.2: expected 0 for folder:" in message(test=0.2)
    (tmp_path / "own/test/dog").mkdir()
    assert message() == f"{tmp_path}/own/test/dog: no such class in {tmp_path}/own/train"
    (tmp_path / "own/train/dog").mkdir()
    assert message().startswith(f"{tmp_path}/own/train/dog: no images, expected files that end in")
    shutil.rmtree(tmp_path / "own/train")
    assert message() == f"{tmp_path}/own: no folder train beside {tmp_path}/own/test"
    with pytest.raises(UserError, match="data.name = 'folder:': expected folder: and then where"):
        data.load("folder:")
    folders(tmp_path / "one", (("all", 3),))
    with pytest.raises(UserError, match="has the class 'all' alone"):
        load(tmp_path / "one", tmp_path, test=0.2)


def test_what_is_left_out_is_told(tmp_path, caplog):
    found = folders(tmp_path / "own", (("train", 2), ("test", 2), ("val", 1)))
    (tmp_path / "own/train/ant/notes.txt").write_text("x")
    (tmp_path / "own/train/ant/.hidden.png").write_text("x")
    save(tmp_path / "own/train/stray.png", pixels(0))
    (tmp_path / "own/extra").mkdir()
    check(load(tmp_path / "own", tmp_path), found)
    told = caplog.text
    assert "2 files left out" in told and ".hidden" not in told
    assert "left out, neither train, test nor val: extra" in told
    assert "its validation split is left out" in told


def table(tmp_path, text):
    path = tmp_path / "own.csv"
    path.write_text(text)
    return f"csv:{path}"


def test_a_csv_with_and_without_splits(tmp_path):
    images = [pixels(seed) for seed in range(10)]
    for place, image in enumerate(images):
        save(tmp_path / "pictures" / f"{place}.png", image)
    rows = [f"pictures/{place}.png,{(place % 2) * 9 + 1}" for place in range(10)]
    name = table(tmp_path, "\ufeffpath, label\n" + "\n".join(rows))
    dataset = data.load(name, data_dir=str(tmp_path / "data"), test=0.2)
    assert dataset.class_names == ("1", "10")  # By value, not as text.
    assert len(dataset.train) == 8 and np.bincount(dataset.test.labels).tolist() == [1, 1]
    splits = [f"{row},{'val' if place < 3 else 'train'}" for place, row in enumerate(rows)]
    name = table(tmp_path, "path,label,split\n" + "\n".join(splits))
    dataset = data.load(name, data_dir=str(tmp_path / "data"))
    assert np.array_equal(dataset.train.images, np.stack(images[3:]))
    assert np.array_equal(dataset.test.labels, [0, 1, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nx,y\n", "own.csv: no column path, expected .*; it has file, label$"),
        ("", "own.csv: no column path, .* it has none"),
        ("path,label\n", "own.csv: no rows"),
        ("path,label\nx.png,a\n", r"own.csv, line 2: no file .*/x.png"),
        ("path,label\nown.csv,\n", "own.csv, line 2: no label"),
        ("path,label\nown.csv,a,b\n", "own.csv, line 2: more values than columns"),
        (
            "path,label,split\nown.csv,a,dev\n",
            "line 2: split is 'dev', expected one of train",
        ),
        ("path,label,split\nown.csv,a,train\nown.csv,a,\n", "line 3: no split"),
        ("path,label\n" + "own.csv,a\nown.csv,b\n" * 2, "own.csv: not a readable image"),
        ("path,label\nown.csv,a\nown.csv,a\n", "has the class 'a' alone"),
        ('path,label\n"own.csv,a\n', "not a CSV file"),
    ],
)
def test_a_csv_that_does_not_do(text, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        data.load(table(tmp_path, text), data_dir=str(tmp_path / "data"), test=0.5)
    assert "\n" not in str(caught.value)


def test_a_csv_that_is_no_text_or_not_there(tmp_path):
    with pytest.raises(UserError, match=r"data.name = csv:.*: cannot be read \(No such file"):
        data.load(f"csv:{tmp_path / 'own.csv'}")
    (tmp_path / "own.csv").write_bytes(b"path,label\n\xff\xfe,a\n")
    with pytest.raises(UserError, match="own.csv: not a CSV file in UTF-8"):
        data.load(f"csv:{tmp_path / 'own.csv'}")


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


FULL_DISK = """
import resource, sys
from collab_jax import data
from collab_jax.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
try:
    data.load(f"folder:{sys.argv[1]}", data_dir=sys.argv[2])
except RunError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    folders(tmp_path / "own")
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "own"), str(tmp_path / "data")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "own-" in result.stdout and "cannot be written (File too large)" in result.stdout
    assert [found.suffix for found in (tmp_path / "data/arrays/images").iterdir()] == [".lock"]
