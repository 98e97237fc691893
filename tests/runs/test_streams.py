"""Output that ends before the run does."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from collab_jax.runs.streams import surviving_streams

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_pipe_without_a_reader_is_no_error(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with surviving_streams():
            for _ in range(3):
                print("nobody reads this", file=sys.stderr)
                sys.stderr.flush()
        assert sys.stderr is stream
        print("nor this", file=sys.stderr, flush=True)


def test_what_is_read_is_written_as_ever(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stderr", None)  # as after 2>&-
    with surviving_streams():
        print("out")
        print("nowhere", file=sys.stderr)
        with pytest.raises(AttributeError):
            _ = sys.stderr.wriet
    assert capfd.readouterr().out == "out\n"


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["2>&1 | head -n 1", "2>/dev/full", "2>&-"])
def test_training_goes_on_without_a_display(ending, tmp_path):
    overrides = {
        "epochs": 3,
        "data.train_examples": 128,
        "batch_size": 64,
        "model.width": 0.0625,
        "model.classifier_width": 16,
    }
    command = [sys.executable, "launch.py", "--config=digits_vgg16:baseline"]
    command += [f"--config.{key}={value}" for key, value in overrides.items()]
    command += [f"--workdir={tmp_path / 'run'}"]
    script = f"{{ {shlex.join(command)}; echo $? >{tmp_path / 'code'}; }} {ending}"
    programs = {"JAX_COMPILATION_CACHE_DIR": os.environ["COLLAB_JAX_TEST_PROGRAMS"]}
    subprocess.run(
        ["bash", "-c", script],
        cwd=REPOSITORY,
        env={**os.environ, **programs, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert (tmp_path / "code").read_text() == "0\n"
    assert (tmp_path / "run" / "result.json").is_file()
