"""Hugging Face data sets from folders on this machine, and from its cache without a network."""

import io

import numpy as np
import pytest
from PIL import Image

from collab_jax import data
from collab_jax.errors import UserError

datasets = pytest.importorskip("datasets")

NAMES = ("ant", "bee")
NO_NETWORK = "http://127.0.0.1:9"  # A proxy that refuses every connection.


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NO_NETWORK)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def rows(count, seed=0, side=8):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return images, np.arange(count) % len(NAMES)


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def split(images, labels, label=None, column="label"):
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "image": datasets.Image(),
            column: label or datasets.ClassLabel(names=list(NAMES)),
        }
    )
    table = {"id": range(len(images)), "image": [encoded(image) for image in images]}
    return datasets.Dataset.from_dict({**table, column: list(labels)}, features=features)


def check(dataset, train, test):
    for found, (images, labels) in ((dataset.train, train), (dataset.test, test)):
        assert np.array_equal(found.images, images)
        assert np.array_equal(found.labels, labels)


TRAIN, TEST = rows(12), rows(6, seed=1)


def load(place, tmp_path, **arguments):
    return data.load(f"hf:{place}", data_dir=str(tmp_path / "data"), **arguments)


def test_a_folder_of_parquet_files(tmp_path):
    (tmp_path / "own" / "data").mkdir(parents=True)
    split(*TRAIN).to_parquet(tmp_path / "own/data/train-00000-of-00001.parquet")
    split(*TEST).to_parquet(tmp_path / "own/data/test-00000-of-00001.parquet")
    for _ in range(2):
        dataset = load(tmp_path / "own", tmp_path)
        check(dataset, TRAIN, TEST)
        assert dataset.class_names == NAMES
    # Another content under the same names is read again.
    split(*rows(12, seed=5)).to_parquet(tmp_path / "own/data/train-00000-of-00001.parquet")
    check(load(tmp_path / "own", tmp_path), rows(12, seed=5), TEST)


def test_one_parquet_file_and_a_fraction_to_test_with(tmp_path):
    split(*TRAIN).to_parquet(tmp_path / "own.parquet")
    dataset = load(tmp_path / "own.parquet", tmp_path, test=1 / 3)
    assert (len(dataset.train), len(dataset.test)) == (8, 4)


def test_a_folder_that_was_saved_to_disk_is_the_data_set_of_an_npz(tmp_path):
    both = datasets.DatasetDict(train=split(*TRAIN), validation=split(*TEST))
    both.save_to_disk(tmp_path / "own")
    dataset = load(tmp_path / "own", tmp_path)
    check(dataset, TRAIN, TEST)
    (x_train, y_train), (x_test, y_test) = TRAIN, TEST
    arrays = dict(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    np.savez(tmp_path / "own.npz", **arrays, class_names=np.array(NAMES))
    assert data.load(str(tmp_path / "own.npz")).fingerprint == dataset.fingerprint


def test_labels_that_are_text_or_numbers(tmp_path):
    texts = [("cat", "Bee")[label] for label in TRAIN[1]]
    split(TRAIN[0], texts, datasets.Value("string")).save_to_disk(tmp_path / "text")
    dataset = load(tmp_path / "text", tmp_path, test=0.5)
    assert dataset.class_names == ("Bee", "cat")
    split(TRAIN[0], TRAIN[1] * 7, datasets.Value("int64"), "labels").save_to_disk(tmp_path / "int")
    assert load(tmp_path / "int", tmp_path, test=0.5).class_names == ("0", "7")


def test_a_test_split_without_labels_is_left_out(tmp_path, caplog):
    datasets.DatasetDict(
        train=split(*TRAIN), validation=split(*TEST), test=split(TEST[0], [-1] * 6)
    ).save_to_disk(tmp_path / "own")
    check(load(tmp_path / "own", tmp_path), TRAIN, TEST)
    assert "its split test is left out, it has no labels" in caplog.text


def test_the_second_of_two_splits_for_one_use_is_left_out(tmp_path, caplog):
    others = {name: split(*rows(6, seed=7)) for name in ("validation", "Valid", "Train")}
    datasets.DatasetDict(train=split(*TRAIN), val=split(*TEST), **others).save_to_disk(
        tmp_path / "own"
    )
    check(load(tmp_path / "own", tmp_path), TRAIN, TEST)
    for name, part in (("validation", "validation"), ("Valid", "validation"), ("Train", "train")):
        assert f"its split {name} is left out, it has another {part} split" in caplog.text


def test_data_sets_that_do_not_do(tmp_path):
    def message(saved, **arguments):
        saved.save_to_disk(tmp_path / f"own{len(list(tmp_path.iterdir()))}")
        newest = max(tmp_path.glob("own*"), key=lambda path: path.stat().st_mtime_ns)
        with pytest.raises(UserError) as caught:
            load(newest, tmp_path, **arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "has no test split" in message(split(*TRAIN))
    assert "has the columns text, expected one of images" in message(
        datasets.Dataset.from_dict({"text": ["a"]}), test=0.5
    )
    assert "has the label -1, expected 0 to 1" in message(
        split(TRAIN[0], [-1, *TRAIN[1][1:]]), test=0.5
    )
    damaged = split(*TRAIN).cast_column("image", datasets.Image(decode=False))
    damaged = damaged.map(
        lambda row, place: {"image": {"bytes": b"x" if place == 5 else row["image"]["bytes"]}},
        with_indices=True,
        features=split(*TRAIN).features,
    )
    assert ", train row 5: not a readable image" in message(damaged, test=0.5)


def test_a_name_without_network_and_cache_is_told_in_time(tmp_path):
    with pytest.raises(UserError) as caught:
        load("nobody/nothing", tmp_path)
    assert "data.name = 'hf:nobody/nothing': cannot be loaded" in str(caught.value)
    assert "there is no such folder, and " in str(caught.value) and "\n" not in str(caught.value)
