"""Runs of `launch.py` in two processes: one writes, all compute, none outlives the others."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from compare_runs import assert_same_run

from collab_jax import cli
from collab_jax.errors import UserError
from collab_jax.runs import processes
from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = {
    "epochs": 6,
    "decay_epochs": 3,
    "batch_size": 64,
    "data.train_examples": 256,
    "data.label_noise": 0.1,
    "model.width": 0.0625,
    "model.classifier_width": 16,
    "checkpoint.every_steps": 3,
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


def launch(compiled, *arguments, devices=1):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 "
        f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    overrides = [f"--config.{key}={value}" for key, value in TINY.items()]
    return subprocess.Popen(
        [sys.executable, "launch.py", "--config=digits_vgg16:out+mid", *overrides, *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch_two(compiled, workdir, *arguments):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
    flags = ("--coordinator", coordinator, "--num_processes=2", f"--workdir={workdir}")
    return [launch(compiled, *flags, f"--process_id={i}", *arguments) for i in range(2)]


def ended(started, timeout=300):
    results = []
    for process in started:
        _, stderr = process.communicate(timeout=timeout)
        results.append((process.returncode, stderr))
    return results


def wait_for_step(workdir, step, process):
    while max(complete_steps(checkpoint_dir(workdir)), default=0) < step:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(compiled, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("two") / "run"
    for code, stderr in ended(launch_two(compiled, workdir)):
        assert code == 0, stderr
    return workdir


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_a_restart_ends_bit_equal(
    undisturbed, compiled, victim, tmp_path
):
    workdir = tmp_path / "run"
    started = launch_two(compiled, workdir)
    wait_for_step(workdir, 6, started[0])
    started[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, stderr = started[1 - victim].communicate(timeout=120)
    assert time.monotonic() - killed < 60
    assert started[1 - victim].returncode not in (0, None)
    assert "another process of this run is gone" in stderr or "another task died" in stderr
    assert not (workdir / "result.json").exists()
    started[victim].communicate()
    for code, stderr in ended(launch_two(compiled, workdir)):
        assert code == 0, stderr
    assert_same_run(undisturbed, workdir)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_signal_to_one_stops_both_after_the_same_step(undisturbed, compiled, tmp_path):
    workdir = tmp_path / "run"
    started = launch_two(compiled, workdir)
    wait_for_step(workdir, 6, started[0])
    started[1].send_signal(signal.SIGTERM)
    told = ended(started)
    assert [code for code, _ in told] == [75, 75], told
    (step,) = {line for _, text in told for line in text.splitlines() if "stopped by" in line}
    assert f"after step {complete_steps(checkpoint_dir(workdir))[-1]}, which is saved" in step
    for code, stderr in ended(launch_two(compiled, workdir)):
        assert code == 0, stderr
    assert_same_run(undisturbed, workdir)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_of_two_processes_goes_on_in_one_with_four_devices_and_back(compiled, tmp_path):
    workdir = tmp_path / "run"
    for code, stderr in ended(launch_two(compiled, workdir, "--config.steps=8")):
        assert code == 0, stderr
    # The length of a run may not change under way; whoever goes on must ask for the same.
    (workdir / "result.json").unlink()
    config = json.loads((workdir / "config.json").read_text())
    for devices, steps in ((4, 12), (1, 16)):
        config["steps"] = steps
        (workdir / "config.json").write_text(json.dumps(config))
        process = launch(
            compiled, f"--workdir={workdir}", f"--config.steps={steps}", devices=devices
        )
        ((code, stderr),) = ended([process])
        assert code == 0, stderr
        assert f"{devices} x cpu" in stderr and f"going on from {steps - 4}" in stderr
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [4, 4, 8, 8, 12, 12, 16, 16]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_mistake_ends_both_with_the_same_line(undisturbed, compiled):
    told = ended(launch_two(compiled, undisturbed, "--config.learning_rate=0.5"))
    for code, stderr in told:
        assert code == 2
        (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert "learning_rate = 0.05, not 0.5" in line


def test_processes_that_were_told_other_numbers_are_ended(compiled, tmp_path):
    counts = (2, 3)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
    started = [
        launch(
            compiled,
            f"--coordinator={coordinator}",
            f"--num_processes={count}",
            f"--process_id={number}",
            f"--workdir={tmp_path / 'run'}",
        )
        for number, count in enumerate(counts)
    ]
    told = ended(started, timeout=120)
    assert [code for code, _ in told] == [2, 2], told
    for (_, stderr), own, other in zip(told, counts, counts[::-1], strict=True):
        assert f"error: --num_processes {own}: process" in stderr and f"with {other}" in stderr
    assert not (tmp_path / "run").exists()


def test_a_batch_without_equal_parts_is_refused(compiled, tmp_path):
    process = launch(compiled, f"--workdir={tmp_path / 'run'}", devices=3)
    ((code, stderr),) = ended([process])
    assert code == 2
    assert "error: config.batch_size = 64: expected a multiple of the 3 devices" in stderr
    assert not (tmp_path / "run").exists()


FLAGS = ["--coordinator", "10.0.0.1:1234", "--num_processes", "2", "--process_id", "1"]


def test_processes_on_the_command_line():
    recipe = ["--config", "digits_vgg16:out"]
    assert cli.parse([*recipe, *FLAGS]).processes == ("10.0.0.1:1234", 2, 1)
    assert cli.parse(recipe).processes is None
    for arguments, message in (
        (FLAGS[:4], "--coordinator is given without --process_id, expected all three"),
        ([*FLAGS[2:], "--coordinator", "here"], "--coordinator 'here': expected HOST:PORT"),
        ([*FLAGS[:4], "--process_id", "2"], "--process_id 2: expected less than --num_processes 2"),
        ([*FLAGS[:2], *FLAGS[4:], "--num_processes", "two"], "expected a whole number"),
    ):
        with pytest.raises(UserError, match=message):
            cli.parse([*recipe, *arguments])


def test_slurm_starts_several_processes_only_for_several_tasks(monkeypatch):
    for tasks, number, expected in ((None, None, False), ("1", "0", False), ("4", "2", True)):
        for name, value in (("SLURM_STEP_NUM_TASKS", tasks), ("SLURM_PROCID", number)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        assert processes.under_slurm() == expected
