"""Splits, subsets and orders: functions of labels and seed alone."""

import hashlib
import sys

import numpy as np
import pytest

from collab_jax import data
from collab_jax.data import subsets
from collab_jax.errors import UserError

LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(4), [100, 60, 30, 10]))


@pytest.mark.parametrize(("validation", "count"), [(0.25, 50), (50, 50), (50.0, 50), (0.001, 1)])
def test_held_out_images_keep_the_classes_proportions(validation, count):
    held = subsets.hold_out(LABELS, validation, seed=0)
    assert len(held) == count and np.all(np.diff(held) > 0)
    exact = np.array([100, 60, 30, 10]) * count / 200
    found = np.bincount(LABELS[held], minlength=4)
    assert np.all(np.abs(found - exact) < 1)
    assert np.array_equal(held, subsets.hold_out(LABELS, validation, seed=0))


def test_largest_remainders_get_the_rest():
    # Exact shares of 33 are 16.5, 9.9, 4.95, 1.65.
    found = np.bincount(LABELS[subsets.hold_out(LABELS, 33, seed=0)])
    assert found.tolist() == [16, 10, 5, 2]


def test_another_seed_holds_out_others():
    first, second = (set(subsets.hold_out(LABELS, 50, seed=seed)) for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(
    ("count", "sizes"), [(40, [10] * 4), (120, [40, 40, 30, 10]), (200, [100, 60, 30, 10])]
)
def test_subset_has_equally_many_of_each_class_while_they_last(count, sizes):
    chosen = subsets.balanced_subset(LABELS, count, seed=0)
    assert np.all(np.diff(chosen) > 0)
    assert np.bincount(LABELS[chosen]).tolist() == sizes
    assert np.array_equal(chosen, subsets.balanced_subset(LABELS, count, seed=0))


def test_what_cannot_be_shared_equally_goes_to_random_classes():
    extras = set()
    for seed in range(20):
        sizes = np.bincount(LABELS[subsets.balanced_subset(LABELS, 18, seed=seed)])
        assert sorted(sizes) == [4, 4, 5, 5]
        extras.add(tuple(sizes))
    assert len(extras) > 2


def test_each_image_is_equally_likely():
    counts = np.zeros(200)
    for seed in range(400):
        counts[subsets.balanced_subset(LABELS, 40, seed=seed)] += 1
    # Ten of the class's 100: binomial(400, .1), five standard deviations.
    assert np.abs(counts[LABELS == 0] - 40).max() < 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 1437}, "data.validation = 1437: expected less than the 1437 training"),
        ({"validation": 0.999}, "leaves class . of digits without training images"),
        ({"validation": -0.1}, "data.validation = -0.1: expected a fraction below 1 or a number"),
        ({"validation": 1.5}, "data.validation = 1.5: expected"),
        ({"validation": float("nan")}, "data.validation = nan: expected"),
        ({"train_examples": 9}, "data.train_examples = 9: expected 0 .all. or from 10, one image"),
        ({"train_examples": 1438}, "to 1437, the training images of digits"),
        ({"validation": 437, "train_examples": 1001}, "data.train_examples = 1001.* to 1000"),
        ({"image_size": 9}, "data.image_size = 9: expected 0 .* those of digits are 8 x 8"),
    ],
)
def test_what_the_data_do_not_allow(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        data.load("digits", **arguments)
    assert "\n" not in str(caught.value)


def test_splits_are_apart_and_whole():
    def ids(split):
        return {image.tobytes() for image in split.images}

    whole = data.load("digits")
    parts = data.load("digits", validation=0.2, seed=5)
    assert len(parts.train) + len(parts.validation) == len(whole.train) == 1437
    assert not ids(parts.train) & ids(parts.validation)
    assert ids(parts.train) | ids(parts.validation) == ids(whole.train)
    small = data.load("digits", validation=0.2, train_examples=100, seed=5)
    assert ids(small.validation) == ids(parts.validation)
    assert ids(small.train) < ids(parts.train)
    assert np.bincount(small.train.labels).tolist() == [10] * 10
    other = data.load("digits", validation=0.2, train_examples=100, seed=6)
    assert ids(small.train) != ids(other.train)
    assert np.array_equal(whole.test.images, other.test.images)


def test_take_gives_the_same_examples_as_the_whole_split():
    for split in (data.load("digits").train, data.load("digits", train_examples=100).train):
        images, labels = split.take(np.array([5, 0, 99, 5]))
        assert np.array_equal(images, split.images[[5, 0, 99, 5]])
        assert np.array_equal(labels, split.labels[[5, 0, 99, 5]])
        assert split.image_shape == (8, 8, 1)
        assert split.nbytes == split.images.nbytes == len(split) * 64


def test_digits_are_read_without_importing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert len(data.load("digits").train) == 1437


def test_digits_are_the_same_where_their_file_has_moved(monkeypatch):
    expected = data.load("digits")
    monkeypatch.setattr("collab_jax.data.digits._FILE", "moved.csv.gz")
    assert data.load("digits").fingerprint == expected.fingerprint


def test_digits_are_those_bundled_with_scikit_learn_in_a_fixed_split():
    from sklearn.datasets import load_digits

    dataset = data.load("digits", seed=11)
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    bundled = load_digits()
    # 0..16 to 0..255, rounded; no value falls between two whole numbers.
    expected = {
        (tuple((row * 255 + 8) // 16), label)
        for row, label in zip(bundled.data.astype(int), bundled.target, strict=True)
    }
    found = {
        (tuple(image.ravel()), label)
        for split in (dataset.train, dataset.test)
        for image, label in zip(split.images.astype(int), split.labels, strict=True)
    }
    assert found == expected
    shares = np.bincount(dataset.test.labels) / np.bincount(bundled.target)
    assert np.all(np.abs(shares - 360 / 1797) < 1 / 174)
    # The split must never move, or errors could not be compared.
    digest = hashlib.sha256(dataset.test.images.tobytes()).hexdigest()
    assert digest[:16] == "e94bdb54e0c1ee18"


def test_order_is_a_permutation_by_seed_and_epoch_alone():
    order = data.epoch_order(1000, seed=3, epoch=7)
    assert order.dtype == np.int32
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert np.array_equal(order, data.epoch_order(1000, seed=3, epoch=7))
    others = [data.epoch_order(1000, seed=s, epoch=e) for s, e in ((3, 8), (4, 7), (7, 3))]
    assert not any(np.array_equal(order, other) for other in others)
    # A resumed run needs the same order from every version.
    assert data.epoch_order(8, seed=0, epoch=0).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]


def test_each_example_takes_each_place_equally_often():
    places = np.zeros((10, 10))
    for epoch in range(2000):
        places[np.arange(10), data.epoch_order(10, seed=0, epoch=epoch)] += 1
    # Binomial(2000, .1): six standard deviations.
    assert np.abs(places - 200).max() < 6 * np.sqrt(2000 * 0.1 * 0.9)
