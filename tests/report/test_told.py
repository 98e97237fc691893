"""What the report tells of files that cannot be read, of the split that chose, and of compute."""

import json

import pytest
from test_report import cell, rows_of, table, write_run, write_study

from collab_jax.report import write_report


@pytest.fixture
def written(tmp_path):
    """Writes a study with three seeds of baseline and mid; the function gives its report's text."""
    folder = tmp_path / "study"
    cells = [cell("baseline", range(3)), cell("mid", range(3))]
    for item, error in zip(cells, (20.0, 10.0), strict=True):
        for run in item["runs"]:
            write_run(folder, run["path"], error=error + run["seed"] / 8, seed=run["seed"])

    def write(change=lambda folder, content: None):
        content = table(cells)
        change(folder, content)
        write_study(folder, [content])
        write_report([folder], tmp_path / "report")
        return (tmp_path / "report" / "report.md").read_text()

    return write


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"last_test_error": 10.0, "epo', "result.json: cannot be read; expected a whole JSON"),
        ("", "result.json: cannot be read"),
        ("[1, 2]", "result.json: cannot be read"),
        ("[" * 100_000, "result.json: cannot be read"),
        ('{"epochs": [4], "seconds": 1}', "result.json: epochs = [4], expected a number"),
        ('{"epochs": 4, "seconds": null}', "result.json: seconds = None, expected a number"),
        ('{"epochs": 4, "seconds": 1, "last_test_error": "low"}', "last_test_error = 'low'"),
        ('{"epochs": 4}', "result.json: no seconds, expected a run's result"),
    ],
)
def test_a_result_that_cannot_be_read_is_told_and_not_counted(content, message, written):
    def damage(folder, _):
        (folder / "digits/mid/seed-1/result.json").write_text(content)

    text = written(damage)
    (told,) = [row[1] for row in rows_of(text) if row[0] == "digits/mid/seed-1"]
    assert message in told and "<br>" not in told, "more than one line"
    assert "at epoch 4 of 4" not in text
    assert "Of 6 runs: 5 done, 1 unreadable." in text
    mid = next(row for row in rows_of(text) if row[:2] == ["digits", "mid"])
    assert mid[2].endswith("(2 of 3)") and mid[3].endswith("too few seeds to tell (2)")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "5",
        "null",
        '{"step": 1}',
        '{"step": "1", "epoch": 1, "split": "test"}',
        '{"step": 1, "epoch": 1, "split": ["test"], "top1_error": 3}',
        '{"step": 1, "epoch": 1, "split": "test", "top1_error": "low"}',
        "[" * 100_000,
    ],
)
def test_a_damaged_line_of_metrics_is_told(line, written):
    def damage(folder, _):
        path = folder / "digits/mid/seed-1/metrics.jsonl"
        path.write_text(f"{line}\n{path.read_text()}")

    text = written(damage)
    (told,) = [row[1] for row in rows_of(text) if row[0] == "digits/mid/seed-1"]
    assert told.startswith("metrics.jsonl: line 1 of 9 is damaged") and "no curve" in told
    assert "Of 6 runs: 6 done." in text


def test_direct_contrasts_stand_with_their_own_holm(written):
    def ask(_, content):
        content["contrasts"] = [["mid", "baseline"], ["baseline", "mid"]]

    rows = rows_of(written(ask))
    there = next(row for row in rows if row[:3] == ["digits", "mid", "baseline"])
    back = next(row for row in rows if row[:3] == ["digits", "baseline", "mid"])
    assert there[3].startswith("-10.00<br>[-10.00, -10.00]") and there[3].endswith("better (3)")
    assert back[3].startswith("+10.00") and back[3].endswith("worse (3)")
    assert "sign-flip p 0.2500" in there[3]
    assert "Direct contrasts" not in written()


def test_the_split_that_chose_is_told_and_the_latest_of_ties_taken(written):
    def validate(folder, _):
        for path in folder.glob("digits/*/seed-*"):
            data = {"validation": 1000, "train_examples": 500, "label_noise": 0.5}
            (path / "config.json").write_text(json.dumps({"epochs": 4, "data": data}))
            errors = [9, 7, 7, 8] if path.parent.name == "mid" else [9, 8, 7, 8]
            with (path / "metrics.jsonl").open("a") as file:
                for epoch, error in enumerate(errors, 1):
                    line = {"step": epoch, "epoch": epoch, "split": "validation"}
                    file.write(json.dumps({**line, "top1_error": error}) + "\n")

    text = written(validate)
    assert "Validation: 1,000 images, beside 500 training images (2.00 of their number)." in text
    assert "Its labels stay clean" in text and "In 3 of 6 runs several epochs share" in text
    mid = next(row for row in rows_of(text) if row[:2] == ["digits", "mid"])
    # Of epochs 2 and 3 the third; result.json has the second.
    assert mid[4].startswith("13.12 ± ")


def test_flops_and_time_are_shown_beside_each_other(written):
    assert "Compute" not in written()

    def count(folder, content):
        for item, flops, rate in zip(content["cells"], (2e9, 9e9), (300.0, 100.0), strict=True):
            item["flops"] = flops
            for run in item["runs"]:
                path = folder / run["path"]
                (path / "config.json").write_text(json.dumps({"epochs": 4, "batch_size": 8}))
                lines = [json.loads(x) for x in (path / "metrics.jsonl").read_text().splitlines()]
                for line in lines:
                    # The first epoch compiles.
                    line["images_per_second"] = rate if line["epoch"] > 1 else 1.0
                (path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))

    rows = rows_of(written(count))
    assert ["digits", "mid", "4", "4.50", "3.00"] in rows
    assert ["digits", "baseline", "4", "1.00", "1.00"] in rows
