"""Images that a CSV lists, and the same ones from elsewhere."""

import numpy as np
import pytest
from image_folders import CLASSES, folders, pixels, save

from collab_jax import data
from collab_jax.errors import UserError

pytestmark = pytest.mark.smoke


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
