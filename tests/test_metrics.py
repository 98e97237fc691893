"""metrics.jsonl after a crash, TensorBoard events, and epoch means."""

import json
import resource
import signal

import pytest
from tensorboardX.proto import event_pb2

from collab_jax.errors import RunError
from collab_jax.metrics import MetricsLog, read_metrics, summarise


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


def test_events_hold_every_value_by_split(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write(line(6))
    log.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = {}
    for event in read_events(path):
        for value in event.summary.value:
            found[value.tag] = (event.step, value.simple_value)
    assert found == {"test/loss": (6, 3.0)}


def read_events(path):
    """TFRecord framing: 8 bytes of length, 4 of checksum, the record, 4 of checksum."""
    data = path.read_bytes()
    while data:
        length = int.from_bytes(data[:8], "little")
        yield event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_sums_become_means_and_percent():
    sums = {"steps": 4, "skipped": 1, "loss": 2.0, "mid": 8.0, "top1_wrong": 1.0, "top5_wrong": 0.5}
    assert summarise({**sums, "fault": -1}) == pytest.approx(
        {"loss": 0.5, "mid": 2.0, "top1_error": 25.0, "top5_error": 12.5, "skipped_steps": 1}
    )


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
