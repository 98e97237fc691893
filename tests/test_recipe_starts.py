"""The cheapest starts of recipes at their own rates, by the program that runs them all."""

import numpy as np
import pytest
import recipe_starts
from recipe_starts import ALL_TERMS, made_up, passes, start, table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "width", "steps", "classes"),
    [
        ("cifar100_vgg16:baseline", 0.125, 60, 100),
        (f"cifar10_vgg16:{ALL_TERMS}", 0.0625, 40, 10),
    ],
)
def test_a_recipe_learns_at_its_own_rate(recipe, width, steps, classes, tmp_path):
    """The paper's rate, and its classifier at full width."""
    line = start(tmp_path / "a.jsonl", tmp_path, {}, recipe, width, steps)
    data = f"cifar{classes}, made up"
    assert line["set"] == {"data": data, "model.width": width, "learning_rate": 0.1}
    assert len(line["losses"]) == steps and passes(line["losses"], classes), table([line])
    assert line["dead_units_fc1"] < 1
    # What is measured is read again, not measured again.
    measured = (tmp_path / "a.jsonl").read_text()
    again = start(tmp_path / "a.jsonl", tmp_path, {}, recipe, width, steps)
    assert again == line and (tmp_path / "a.jsonl").read_text() == measured


def test_passes_takes_both_conditions():
    falling = [2.5] * 10 + [2.3] * 20 + [2.0] * 10
    assert passes(falling, 10)
    assert not passes([2.3] * 40, 10)
    assert not passes([*falling[:15], 4.7, *falling[16:]], 10)
    assert passes([*falling[:5], 9.0, *falling[6:]], 10)


def test_the_rate_rises_over_steps_whatever_an_epoch_has(tmp_path, monkeypatch):
    def asked(out, recipe, changes, steps, *, shown):
        return changes["warmup_epochs"], shown["warmup_steps"]

    monkeypatch.setattr(recipe_starts, "measured", asked)
    arguments = (tmp_path / "a.jsonl", tmp_path, {}, "cifar10_vgg16:baseline", 0.125, 60)
    # Fifteen batches of 128 in 2,000 made-up images.
    assert start(*arguments, warmup=390) == (26.0, 390)


def test_made_up_images_have_classes_to_learn():
    arrays = made_up((8, 8, 3), 20, 100)
    assert arrays["x_train"].shape == (100, 8, 8, 3) and arrays["x_train"].dtype == np.uint8
    assert set(arrays["y_train"]) == set(arrays["y_test"]) == set(range(20))
    means = np.stack(
        [arrays["x_train"][arrays["y_train"] == c].mean(0, dtype=np.float64) for c in range(20)]
    )
    distances = ((arrays["x_test"][:, None] - means[None]) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == arrays["y_test"]).mean() == 1
