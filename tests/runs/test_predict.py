"""Classes of image files by a trained run, on the command line."""

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

import collab_jax
from collab_jax import cli
from collab_jax.errors import UserError
from collab_jax.runs import loop, predict

pytestmark = pytest.mark.smoke

SIDE = 12
CLASSES = ("dark", "light")


def image(label, height=SIDE, width=SIDE, channels=3, seed=0):
    noise = np.random.default_rng(seed).integers(0, 80, (height, width, channels), np.uint8)
    return noise + np.uint8(170 * label)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for label, name in enumerate(CLASSES):
        (folder / "images" / name).mkdir(parents=True)
        for seed in range(80):
            shown = Image.fromarray(image(label, seed=seed))
            shown.save(folder / "images" / name / f"{seed}.png")
    config = tiny_config(
        "baseline",
        epochs=8,
        batch_size=32,
        decay_epochs=(),
        data__name=f"folder:{folder / 'images'}",
        data__dir=str(folder / "data"),
        data__train_examples=0,
        data__validation=0,
        data__label_noise=0.0,
        data__test=0.2,
    )
    loop.run(config, folder / "run")
    return folder / "run"


def shown(folder, name, pixels):
    Image.fromarray(pixels).save(folder / name)
    return str(folder / name)


def test_each_image_has_a_line_with_its_class_and_probability(trained, tmp_path, capsys):
    light, dark = image(1, seed=200), image(0, seed=201)
    alpha = np.full((SIDE, SIDE, 1), 255, np.uint8)
    paths = [
        shown(tmp_path, "light.png", light),
        shown(tmp_path, "a b.bmp", dark),
        shown(tmp_path, "grey.png", dark[..., 0]),
        shown(tmp_path, "rgba.png", np.dstack([light, alpha])),
    ]
    assert cli.main(["--workdir", str(trained), "--predict", *paths]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == paths
    assert [line[1] for line in lines] == ["light", "dark", "dark", "light"]
    restored = collab_jax.load(trained)
    grey = np.repeat(dark[..., :1], 3, axis=2)
    expected = restored.predict(np.stack([light, dark, grey, light])).max(axis=1)
    np.testing.assert_allclose([float(line[2]) for line in lines], expected, atol=6e-5)


def test_another_size_is_resized_as_the_data_set_was(trained, tmp_path):
    # Each pixel becomes a block of four, between bands that the middle square leaves out.
    small = image(1, seed=300)
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    band = np.zeros((2 * SIDE, 10, 3), np.uint8)
    path = shown(tmp_path, "large.png", np.concatenate([band, large, band], axis=1))
    same = shown(tmp_path, "small.png", small)
    (_, name, probability), (_, expected, of_small) = predict.run(trained, [path, same])
    assert (name, probability) == (expected, of_small)


def test_many_images_are_read_in_parts(trained, tmp_path, monkeypatch):
    paths = [shown(tmp_path, f"{i}.png", image(i % 2, seed=i)) for i in range(7)]
    whole = list(predict.run(trained, paths, checkpoint="last"))
    monkeypatch.setattr(predict, "_BATCH", 3)
    parts = list(predict.run(trained, paths, checkpoint="last"))
    assert [str(path) for path, _, _ in parts] == paths
    assert [name for _, name, _ in parts] == [name for _, name, _ in whole]
    np.testing.assert_allclose([p for *_, p in parts], [p for *_, p in whole], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.png", None, "gone.png: no such file, expected an image"),
        (".", None, "is a folder, expected an image file"),
        ("text.png", b"no image", "text.png: not a readable image, expected a PNG"),
        ("empty.jpg", b"", "empty.jpg: not a readable image"),
    ],
)
def test_what_is_no_image_is_named_in_one_line(trained, tmp_path, capsys, name, content, message):
    good = shown(tmp_path, "good.png", image(1))
    if content is not None:
        (tmp_path / name).write_bytes(content)
    arguments = ["--workdir", str(trained), "--predict", good, str(tmp_path / name)]
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1


def test_a_network_of_oblong_images_takes_no_other_size(trained, tmp_path, monkeypatch):
    restored = collab_jax.load(trained)
    object.__setattr__(restored.info, "image_shape", (SIDE, 2 * SIDE, 3))
    monkeypatch.setattr(predict, "load_run", lambda *_: restored)
    with pytest.raises(UserError, match=r"12 x 12 pixels, expected 12 x 24 \(height x width\)"):
        list(predict.run(trained, [shown(tmp_path, "a.png", image(1))]))
    object.__setattr__(restored.info, "image_shape", (SIDE, SIDE, 4))
    with pytest.raises(UserError, match="takes images of 4 channels, expected 1 or 3"):
        list(predict.run(trained, [shown(tmp_path, "a.png", image(1))]))
