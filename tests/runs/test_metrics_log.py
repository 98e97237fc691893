"""metrics.jsonl after a crash, TensorBoard events, and epoch means."""

import json
import resource
import signal

import pytest
from tensorboardX.event_file_writer import EventsWriter

from collab_jax.errors import RunError
from collab_jax.runs.metrics_log import MetricsLog, read_metrics
from collab_jax.runs.tensorboard import read_events
from collab_jax.training.step import summarise


def line(step):
    return {"step": step, "epoch": step, "split": "test", "loss": step / 2, "wait_fraction": None}


def test_lines_after_the_resumed_step_and_a_torn_one_are_dropped(tmp_path):
    log = MetricsLog(tmp_path, 0, tensorboard=False)
    for step in (1, 2, 3):
        log.write(line(step))
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ep')
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2, 3]
    log = MetricsLog(tmp_path, 2, tensorboard=False)
    log.write(line(3))
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(entry) for entry in text] == [line(1), line(2), line(3)]


def scalars(folder):
    """Every (tag, step, value) in the order read, of all files."""
    return [
        (value.tag, event.step, value.simple_value)
        for path in sorted(folder.iterdir())
        for event in read_events(path)
        for value in event.summary.value
    ]


def test_events_hold_every_value_by_split(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(line(6))
    log.close()
    assert scalars(tmp_path / "tensorboard") == [("test/loss", 6, 3.0)]


def test_events_go_on_in_one_file_without_repeats(tmp_path):
    folder = tmp_path / "tensorboard"
    for first in (0, 2, 2, 3):  # as after three kills, of which one tore the last event
        log = MetricsLog(tmp_path, first)
        for step in range(first + 1, first + 4):
            log.write(line(step))
        log.close()
        (path,) = folder.iterdir()
        path.rename(folder / f"events.out.tfevents.{first}.another-process.collab_jax")
        with next(folder.iterdir()).open("ab") as file:
            file.write(path.name.encode()[: 7 * first])
    assert scalars(folder) == [("test/loss", step, step / 2) for step in range(1, 7)]


def test_what_a_kill_between_two_event_files_left_is_not_repeated(tmp_path):
    folder = tmp_path / "tensorboard"
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write(line(step))
    log.close()
    (path,) = folder.iterdir()
    for name in ("first", "second"):
        (folder / f"events.out.tfevents.{name}.collab_jax").write_bytes(path.read_bytes())
    path.unlink()
    MetricsLog(tmp_path, 2).close()
    assert scalars(folder) == [("test/loss", 1, 0.5), ("test/loss", 2, 1.0)]


@pytest.mark.parametrize("place", [3, 9, 30, -1])
def test_a_damaged_event_ends_the_reading(tmp_path, place):
    path = tmp_path / "events"
    writer = EventsWriter(str(path))
    writer.close()
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    assert [event.file_version for event in read_events(path)] == ["brain.Event:2"]
    content[place] ^= 4
    path.write_bytes(content)
    assert not list(read_events(path))


def test_sums_become_means_and_percent():
    sums = {"steps": 4, "skipped": 1, "loss": 2.0, "mid": 8.0, "top1_wrong": 1.0, "top5_wrong": 0.5}
    assert summarise({**sums, "fault": -1, "learning_rate": 0.1}) == pytest.approx(
        {
            "loss": 0.5,
            "mid": 2.0,
            "top1_error": 25.0,
            "top5_error": 12.5,
            "skipped_steps": 1,
            "learning_rate": 0.1,
        }
    )


def test_nothing_counted_is_nothing_and_not_zero():
    sums = {"steps": 0, "skipped": 4, "loss": 0.0, "top1_wrong": 0.0, "top5_wrong": 0.0}
    none = {"loss": None, "top1_error": None, "top5_error": None}
    found = summarise({**sums, "fault": 0, "learning_rate": 0.1})
    assert found == {**none, "learning_rate": 0.1, "skipped_steps": 4}


def test_what_is_not_finite_is_null(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write({**line(1), "loss": float("nan"), "mid": float("-inf"), "top1_error": 90.0})
    log.close()
    assert read_metrics(tmp_path) == [{**line(1), "loss": None, "mid": None, "top1_error": 90.0}]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert scalars(tmp_path / "tensorboard") == [("test/top1_error", 1, 90.0)]


def test_other_peoples_files_beside_the_events_stay(tmp_path):
    folder = tmp_path / "tensorboard"
    (folder / "sub").mkdir(parents=True)
    theirs = [folder / "notes.txt", folder / "events.out.tfevents.1.host"]
    for path in theirs:
        path.write_text("theirs")
    MetricsLog(tmp_path, 0).close()
    MetricsLog(tmp_path, 0).close()
    assert all(path.read_text() == "theirs" for path in theirs) and (folder / "sub").is_dir()
    assert len(list(folder.glob("*.collab_jax"))) == 1


def test_a_damaged_line_that_is_not_the_last_is_told(tmp_path):
    log = MetricsLog(tmp_path, 0, tensorboard=False)
    for step in (1, 2, 3):
        log.write(line(step))
    log.close()
    path = tmp_path / "metrics.jsonl"
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b'"step": 2', b'"st\xffp": 2'))
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 2 of 3 is damaged"):
        read_metrics(tmp_path)
    path.write_bytes(sound[: len(sound) // 3 + 2])
    with pytest.warns(UserWarning, match="1 lines are left of the 3 written up to step 3"):
        MetricsLog(tmp_path, 3, tensorboard=False, expected_lines=3).close()


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "[]",
        '"line"',
        '{"step": 2}',
        '{"step": "2", "epoch": 2, "split": "test"}',
        '{"step": true, "epoch": 2, "split": "test"}',
        '{"step": 2, "epoch": null, "split": "test"}',
        '{"step": 2, "epoch": 2, "split": 0}',
        '{"step": 2, "epoch": 2, "split": "test", "loss": [1]}',
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_json_of_another_form_is_told(text, last, tmp_path):
    sound = json.dumps(line(1)) + "\n"
    (tmp_path / "metrics.jsonl").write_text(sound + text + "\n" + ("" if last else sound))
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 2 of [23] is damaged") as found:
        read_metrics(tmp_path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_full_disk_is_an_error_and_closing_is_not_another(tmp_path, tensorboard):
    log = MetricsLog(tmp_path, 0, tensorboard=tensorboard)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, limits[1]))
        with pytest.raises(OSError, match="too large"):
            for step in range(10):
                log.write(line(step))
        log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    kept = [entry["step"] for entry in read_metrics(tmp_path)]
    assert kept == list(range(len(kept)))
