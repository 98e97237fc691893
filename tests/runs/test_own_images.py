"""Images of one's own from files to the end of a run, by the program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import archives
import numpy as np
import pytest
from compare_runs import last_state, metrics_without_timing
from PIL import Image

from collab_jax import data

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("disc", "bar", "cross")
NARROW = (
    "--config.epochs=2",
    "--config.batch_size=32",
    "--config.model.width=0.0625",
    "--config.model.classifier_width=16",
    "--config.mid.head_width=4",
    "--config.log.tensorboard=false",
)


def picture(label, seed):
    """A disc, a bar or a cross in the middle of noise, in any size from 20 to 60 pixels."""
    random = np.random.default_rng(seed)
    height, width = random.integers(20, 61, 2)
    rows, columns = np.mgrid[:height, :width] - np.array([[[height // 2]], [[width // 2]]])
    side = min(height, width) // 4
    inside = (
        rows**2 + columns**2 < side**2,
        abs(rows) < side // 2,
        (abs(rows) < side // 3) | (abs(columns) < side // 3),
    )[label]
    noise = random.integers(0, 90, (height, width, 3), np.uint8)
    return np.where(inside[..., None], 255 - noise, noise).astype(np.uint8)


def saved(path, pixels, kind):
    image = Image.fromarray(pixels)
    if kind == 0:
        image.save(path.with_suffix(".png"))
    elif kind == 1:
        image.convert("L").save(path.with_suffix(".png"))
    elif kind == 2:
        image.quantize(32).save(path.with_suffix(".gif"))
    elif kind == 3:
        image.putalpha(200)
        image.save(path.with_suffix(".png"))
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.rotate(90, expand=True).save(path.with_suffix(".jpg"), exif=exif, quality=95)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """300 images of three classes: RGB, grey, palette, RGBA and turned by EXIF, 5 kinds."""
    top = tmp_path_factory.mktemp("own")
    for label, name in enumerate(CLASSES):
        (top / "images" / name).mkdir(parents=True)
        for i in range(100):
            seed = 100 * label + i
            saved(top / "images" / name / f"{i:03}", picture(label, seed), i % 5)
    return top


def train(top, workdir, *arguments):
    command = [sys.executable, "launch.py", "--config", *arguments, *NARROW]
    run = subprocess.run(
        [*command, f"--config.data.dir={top / 'data'}", "--workdir", str(workdir)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
    )
    assert run.returncode == 0, run.stderr
    return json.loads((workdir / "result.json").read_text())


def assert_same_metrics(first, second):
    assert metrics_without_timing(first) == metrics_without_timing(second)
    (step, state), (other_step, other) = last_state(first), last_state(second)
    assert step == other_step and state.keys() == other.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


OF_FOLDER = ("--config.data.image_size=16", "--config.data.test=0.2")


def test_a_folder_a_csv_and_an_npz_of_the_same_images_are_the_same_run(folder):
    source = f"folder:{folder / 'images'}"
    result = train(
        folder, folder / "f", "digits_vgg16:mid", f"--config.data.name={source}", *OF_FOLDER
    )
    arrays = data.load(source, data_dir=str(folder / "data"), image_size=16, test=0.2)
    assert (len(arrays.train), len(arrays.test)) == (240, 60)
    assert (arrays.class_names, arrays.train.image_shape) == (tuple(sorted(CLASSES)), (16, 16, 3))
    assert result["data_fingerprint"] == arrays.fingerprint
    rows = ["path,label"] + [
        f"images/{path.relative_to(folder / 'images')},{path.parent.name}"
        for path in sorted((folder / "images").rglob("*.*"))
    ]
    (folder / "own.csv").write_text("\n".join(rows) + "\n")
    np.savez(
        folder / "own.npz",
        x_train=arrays.train.images,
        y_train=arrays.train.labels,
        x_test=arrays.test.images,
        y_test=arrays.test.labels,
        class_names=np.array(arrays.class_names),
    )
    of_csv = f"--config.data.name=csv:{folder / 'own.csv'}"
    of_npz = f"--config.data.name={folder / 'own.npz'}"
    results = [
        train(folder, folder / "c", "digits_vgg16:mid", of_csv, *OF_FOLDER),
        train(folder, folder / "n", "digits_vgg16:mid", of_npz),
    ]
    assert [each["data_fingerprint"] for each in results] == [arrays.fingerprint] * 2
    assert_same_metrics(folder / "f", folder / "c")
    assert_same_metrics(folder / "f", folder / "n")


def test_an_archive_as_torchvision_keeps_it_trains(tmp_path):
    contents = archives.cifar10_python(tmp_path, train=100, test=20)
    result = train(
        tmp_path,
        tmp_path / "run",
        "cifar10_vgg16:baseline",
        f"--config.data.manual_dir={tmp_path}",
    )
    arrays = data.load("cifar10", data_dir=str(tmp_path / "data"), manual_dir=str(tmp_path))
    assert np.array_equal(arrays.train.images, contents.train_images)
    assert result["data_fingerprint"] == arrays.fingerprint
