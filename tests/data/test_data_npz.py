"""A user's own .npz file, sound and not."""

import io
import zipfile

import numpy as np
import pytest

from collab_jax import data
from collab_jax.errors import UserError


def arrays(train=30, test=12, shape=(8, 8, 3), classes=3):
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (train, *shape), dtype=np.uint8),
        "y_train": np.arange(train) % classes,
        "x_test": random.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": np.arange(test) % classes,
    }


def saved(folder, save=np.savez, **changes):
    contents = {**arrays(), **changes}
    path = folder / "own.npz"
    save(path, **{name: value for name, value in contents.items() if value is not None})
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("ending", [".npz", ".NPZ"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(save, ending, order, tmp_path):
    expected = arrays()
    path = saved(
        tmp_path,
        save,
        x_train=np.asarray(expected["x_train"], order=order),
        y_train=expected["y_train"].astype(">u2"),
    )
    path = path.rename(path.with_suffix(ending))
    for _ in range(2):
        dataset = data.load(str(path), data_dir=str(tmp_path / "data"))
        for split, name in ((dataset.train, "train"), (dataset.test, "test")):
            assert np.array_equal(split.images, expected[f"x_{name}"])
            assert np.array_equal(split.labels, expected[f"y_{name}"])
            assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert dataset.class_names == ("0", "1", "2")
        pixels = expected["x_train"] / 255
        np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(dataset.std, pixels.std((0, 1, 2)), rtol=1e-6)


def test_a_changed_file_is_read_again(tmp_path):
    first = data.load(str(saved(tmp_path)), data_dir=str(tmp_path / "data"))
    darker = arrays()["x_train"] // 2
    second = data.load(str(saved(tmp_path, x_train=darker)), data_dir=str(tmp_path / "data"))
    assert not np.array_equal(first.train.images, darker)
    assert np.array_equal(second.train.images, darker)
    assert first.fingerprint != second.fingerprint


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path):
    names = np.array(["a", "b", "c"])
    first = data.load(str(saved(tmp_path))).fingerprint
    other = tmp_path / "other"
    other.mkdir()
    changes = {"y_train": arrays()["y_train"].astype(np.uint8), "class_names": None}
    assert data.load(str(saved(other, np.savez_compressed, **changes))).fingerprint == first
    assert data.load(str(saved(other)), validation=0.2, seed=3).fingerprint == first
    x, y = arrays()["x_train"], arrays()["y_train"]
    flipped = x.copy()
    flipped[-1, -1, -1, -1] ^= 1
    swapped = y[[1, 0, *range(2, 30)]]
    for changes in (
        {"x_train": flipped},
        {"y_train": swapped},
        {"x_test": arrays()["x_test"][:11], "y_test": arrays()["y_test"][:11]},
        {"x_train": x.reshape(30, 4, 16, 3), "x_test": arrays()["x_test"].reshape(12, 4, 16, 3)},
        {"class_names": names},
        {"class_names": names[::-1]},
    ):
        assert data.load(str(saved(other, **changes))).fingerprint != first
    assert data.load(str(saved(other)), image_size=4).fingerprint != first


@pytest.mark.parametrize("kind", [str, bytes])
def test_class_names_are_kept(kind, tmp_path):
    names = ["apple", "bärlauch" if kind is str else "basil", "cress"]
    path = saved(tmp_path, class_names=np.array(names, kind))
    dataset = data.load(str(path))
    assert dataset.class_names == tuple(names)
    assert all(type(name) is str for name in dataset.class_names)


def test_a_fraction_to_test_with_where_there_is_no_test_split(tmp_path):
    path = saved(tmp_path, x_test=None, y_test=None)
    first = data.load(str(path), test=0.2)
    assert np.bincount(first.test.labels).tolist() == [2, 2, 2]
    assert np.bincount(first.train.labels).tolist() == [8, 8, 8]
    every = {image.tobytes() for image in [*first.train.images, *first.test.images]}
    assert every == {image.tobytes() for image in arrays()["x_train"]}
    again = data.load(str(path), test=0.2, seed=5, validation=0.25)
    assert np.array_equal(again.test.images, first.test.images)
    assert again.fingerprint == first.fingerprint
    with pytest.raises(UserError, match=r"no array x_test, .*; or data.test=0.2 to test with"):
        data.load(str(path))
    with pytest.raises(UserError, match=r"data.test = 0.96: leaves class 0 of own.npz without"):
        data.load(str(path), test=0.96)
    with pytest.raises(
        UserError, match=r"data.test = 0.2: expected 0 for .*, which has x_test and"
    ):
        data.load(str(saved(tmp_path)), test=0.2)
    with pytest.raises(
        UserError, match=r"data.test = 0.2: expected 0 for digits, which has a test"
    ):
        data.load("digits", test=0.2)


def test_grey_images_get_a_channel(tmp_path):
    grey = arrays(shape=(6, 5))
    dataset = data.load(str(saved(tmp_path, **grey)))
    assert dataset.train.image_shape == (6, 5, 1)
    assert np.array_equal(dataset.train.images[..., 0], grey["x_train"])


def test_images_are_reduced_by_area(tmp_path):
    dataset = data.load(str(saved(tmp_path)), image_size=4)
    sums = arrays()["x_train"].reshape(30, 4, 2, 4, 2, 3).sum((2, 4), dtype=np.int64)
    assert np.array_equal(dataset.train.images, (sums + 2) // 4)


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a data file was run')",))


X, Y = arrays()["x_train"], arrays()["y_train"]
CASES = {
    "missing": ({"x_test": None}, "no array x_test, expected x_train, y_train, x_test, y_test"),
    "near": ({"x_test": None, "X_test": X}, "holds .*'X_test'; did you mean 'X_test' to be x_test"),
    "float": (
        {"x_train": X / 255},
        r"x_train is float64 \(30, 8, 8, 3\), expected uint8.*255 \* x",
    ),
    "int64": ({"x_train": X.astype(int)}, "x_train is int64 .*, expected uint8 from 0 to 255$"),
    "rank": ({"x_train": X.reshape(30, -1)}, r"x_train is uint8 \(30, 192\), expected \(images"),
    "empty": ({"x_train": X[:0], "y_train": Y[:0]}, r"x_train is uint8 \(0, 8.*at least one image"),
    "empty test": ({"x_test": X[:0], "y_test": Y[:0]}, "x_test .* expected at least one image"),
    "no pixels": ({"x_train": X[:, :0]}, "at least one pixel"),
    "channels": ({"x_train": X.transpose(0, 3, 1, 2)}, "expected channels last.*transpose"),
    "shapes": (
        {"x_test": X[:12, :4]},
        r"x_test is \(4, 8, 3\), expected \(8, 8, 3\) as in x_train",
    ),
    "channels, not square": (
        {"x_train": np.zeros((30, 3, 32, 24), np.uint8)},
        r"x_train is uint8 \(30, 3, 32, 24\), expected channels last.*x.transpose\(0, 2, 3, 1\)",
    ),
    "channels, four": ({"x_train": np.zeros((30, 4, 32, 32), np.uint8)}, "expected channels last"),
    "channels, two": ({"x_train": np.zeros((30, 2, 32, 32), np.uint8)}, "expected channels last"),
    "channels, one": ({"x_train": np.zeros((30, 1, 28, 20), np.uint8)}, "expected channels last"),
    "channels, ten": ({"x_train": np.zeros((30, 10, 64, 64), np.uint8)}, "expected channels last"),
    "names": (
        {"class_names": np.array(["a", "b"])},
        r"class_names is <U1 \(2,\), .* the 3 classes",
    ),
    "names kind": ({"class_names": np.arange(3)}, r"class_names is int64 \(3,\), expected text"),
    "names twice": ({"class_names": np.array(["a", "b", "a"])}, "an empty or a repeated name"),
    "name objects": (
        {"class_names": np.array(["a", "b", "c"], object)},
        r"class_names holds Python objects, expected text .*numpy.array\(names, str\)",
    ),
    "objects": ({"x_train": np.array([Trap()], object)}, "x_train holds Python objects"),
    "label objects": ({"y_train": np.array([Trap()] * 30, object)}, "y_train holds Python objects"),
    "label kind": (
        {"y_train": Y / 1},
        r"y_train is float64 .*, expected a whole number .*y_train.astype\('int64'\)",
    ),
    "label text": (
        {"y_train": np.array(["a", "b", "c"])[Y]},
        "numpy.unique.y_train, return_inverse",
    ),
    "one-hot": (
        {"y_train": np.eye(3, dtype=int)[Y]},
        r"y_train is int64 \(30, 3\), expected a whole .*one-hot labels with y_train.argmax\(1\)",
    ),
    "one-hot, float": ({"y_train": np.eye(3)[Y]}, r"is float64 \(30, 3\), .* y_train.argmax\(1\)"),
    "column": (
        {"y_train": Y[:, None]},
        r"y_train is int64 \(30, 1\), expected .* y_train.ravel\(\)",
    ),
    "bool": ({"y_train": Y > 0}, "y_train is bool"),
    "length": ({"y_train": Y[:29]}, r"y_train is int64 \(29,\).*each of the 30 images of x_train"),
    "negative": ({"y_train": Y - 1}, "y_train holds -1 at 0, expected labels from 0 on"),
    "gap": ({"y_train": np.where(Y == 1, 3, Y)}, "no image of class 1 but one of class 3"),
    "far": (
        {"y_train": np.where(Y == 2, 2**62, Y)},
        f"no image of class 2 but one of class {2**62}",
    ),
    "unsigned": ({"y_train": np.full(30, 2**64 - 1, np.uint64)}, "no image of class 0"),
    "one class": ({"y_train": Y * 0}, "class 0 alone, expected at least two classes"),
    "unknown": ({"y_test": np.arange(12)}, "y_test holds 11 at 11, expected labels from 0 to 2"),
}


@pytest.mark.parametrize("name", CASES)
def test_arrays_that_do_not_fit(name, tmp_path):
    changes, message = CASES[name]
    path = saved(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as caught:
        data.load(str(path), data_dir=str(tmp_path / "data"))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npy"))


def test_no_zip_file(tmp_path):
    path = tmp_path / "own.npz"
    for content in (b"", b"PK\x03\x04", b"x" * 1000, bytes(100)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="own.npz: not a readable .npz file"):
            data.load(str(path))
    with pytest.raises(UserError, match=f"data.name = {tmp_path}/no.npz: no such file"):
        data.load(str(tmp_path / "no.npz"))


def test_a_header_that_promises_more_than_there_is(tmp_path):
    path = saved(tmp_path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8, 3)}
    )
    members["x_train.npy"] = header.getvalue() + X.tobytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=f"x_train is damaged: .* {10**12 * 192} bytes, but 5760"):
        data.load(str(path))


def test_members_with_paths_are_never_written(tmp_path):
    path = saved(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.npy", b"x")
    before = sorted(tmp_path.rglob("*"))
    data.load(str(path), data_dir=str(tmp_path / "data"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_bytes_are_told_in_one_line_or_harmless(save, tmp_path):
    path = saved(tmp_path, save)
    sound = path.read_bytes()
    expected = data.load(str(path))
    random = np.random.default_rng(7)
    told = 0
    for trial in range(150):
        damaged = bytearray(sound)
        place = int(random.integers(len(sound)))
        if trial % 5 == 0:
            del damaged[place:]
        else:
            damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            found = data.load(str(path))
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            told += 1
        else:
            for split in ("train", "test"):
                one, other = getattr(found, split), getattr(expected, split)
                assert np.array_equal(one.images, other.images)
                assert np.array_equal(one.labels, other.labels)
    assert told > 100


def test_without_a_home_directory_a_folder_for_data_is_asked_for(monkeypatch, tmp_path):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    assert len(data.load("digits").train) == 1437
    assert len(data.load(str(saved(tmp_path))).train)
    with pytest.raises(UserError, match=r"data\.dir is empty and there is no home directory"):
        data.load("cifar10")
    with pytest.raises(UserError, match="cifar10"):
        data.load("cifar10", data_dir=str(tmp_path / "data"))
    assert not (tmp_path / "~").exists()
