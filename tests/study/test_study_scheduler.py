"""A study's runs: started once, gone on with, adopted, skipped, stopped; by processes and SLURM."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from compare_runs import assert_same_run
from stubbed import HERE, REPOSITORY, runs_of, starts

from collab_jax.errors import UserError
from collab_jax.study import __main__ as program
from collab_jax.study import launcher as launchers
from collab_jax.study import load_study
from collab_jax.study.child import CommandJob
from collab_jax.study.display import Board
from collab_jax.study.state import State
from collab_jax.study.task import study_runs

DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from collab_jax.study import __main__ as program, scheduler
scheduler.interpreter_command = lambda run: [sys.executable, {stub!r}, *run.arguments]
sys.exit(program.main())
"""


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def test_missing_runs_run_done_ones_are_skipped_and_a_failure_is_told(study, stub, capsys):
    arguments = [*study("baseline", "kernel", "out", pictures=True), "--jobs", "2"]
    dirs = runs_of(arguments)
    done = dirs["out", 0]
    done.mkdir(parents=True)
    (done / "result.json").write_text('{"epochs": 2, "last_test_error": 1.5, "seconds": 9}')
    (Path(arguments[3]) / "study.json").write_text('{"format": 1, "name": "tiny"}')
    assert program.main(arguments) == 1
    captured = capsys.readouterr()
    assert "failed digits_vgg16/kernel/seed-0" in captured.err
    assert captured.err.rstrip().endswith("the loss diverged")
    assert not (done / "config.json").exists(), "a run that is done was started"
    assert json.loads((dirs["baseline", 0] / "result.json").read_text())["seed"] == 0
    # Evaluations follow the runs that are done, and not the one that failed.
    evaluated = {
        method for (method, _), path in dirs.items() if (path / "evaluation-last").exists()
    }
    assert evaluated == {"baseline", "out"}
    content = json.loads((Path(arguments[3]) / "study.json").read_text())
    (cell, _, _) = content["tables"][0]["cells"]
    assert cell["runs"][0]["command"].startswith(
        "python launch.py --config=configs/digits_vgg16.py:baseline --config.epochs=2"
    )
    assert program.main(arguments) == 1, "the failed run is tried again"
    assert starts(dirs["kernel", 0]) == 2 and starts(dirs["baseline", 0]) == 1
    record = json.loads(next((Path(arguments[3]) / "jobs").glob("*baseline*.job.json")).read_text())
    assert record["command"][-1] == f"--workdir={dirs['baseline', 0]}"
    assert program.main([*arguments, "--dry-run"]) == 0
    assert "1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ['{"epochs": 2, "sec', "[]", '"done"', '{"epochs": [2], "seconds": 1}', "[" * 100_000]
)
def test_a_result_that_cannot_be_read_blocks_no_other_run(text, study, stub, tmp_path, capsys):
    arguments = study("baseline", "out")
    dirs = runs_of(arguments)
    assert program.main([*arguments, "--only", "baseline"]) == 0
    result = dirs["baseline", 0] / "result.json"
    whole = result.read_text()
    result.write_text(text)
    second = ["--study", arguments[1], "--out", str(tmp_path / "second"), "--reuse", arguments[3]]
    assert program.main([*second, "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert "2 runs, 2 to do" in captured.out
    (line,) = [x for x in captured.err.splitlines() if "is not copied" in x]
    assert line.startswith("warning: --reuse") and "result.json" in line
    assert program.main(arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not done digits_vgg16/baseline/seed-0" in said and "result.json: " in said
    assert result.read_text() == whole and starts(dirs["baseline", 0]) == 2
    assert starts(dirs["out", 0]) == 1


def test_flops_are_counted_once_and_kept(study, stub):
    arguments, environment = study("baseline"), dict(os.environ)
    program.main([*arguments, "--flops"])
    path = Path(arguments[3]) / "study.json"

    def counted():
        return [cell["flops"] for cell in json.loads(path.read_text())["tables"][0]["cells"]]

    (flops,) = counted()
    assert flops > 1e6
    program.main(arguments)
    assert counted() == [flops]
    assert dict(os.environ) == environment, "the runs would inherit the change"


def test_brackets_of_a_reason_are_shown(capsys):
    board = Board("a study")
    board.update({"a": State("running")}, {"a": None}, None)
    board.update({"a": State("failed", reason="install 'collab-jax[plan]'")}, {}, None)
    assert "failed  a: install 'collab-jax[plan]'\n" in capsys.readouterr().out


def test_a_run_that_somebody_else_holds_is_adopted(study, stub, capsys):
    arguments = study("baseline")
    (run_dir,) = runs_of(arguments).values()
    run_dir.mkdir(parents=True)
    (Path(arguments[3]) / "study.json").write_text('{"format": 1, "name": "tiny"}')
    lock = (run_dir / ".lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)

    def finish():
        (run_dir / "result.json").write_text('{"epochs": 2, "last_test_error": 7, "seconds": 1}')
        lock.close()

    timer = threading.Timer(2.0, finish)
    timer.start()
    assert program.main(arguments) == 0
    assert timer.finished.is_set()
    assert "adopted digits_vgg16/baseline" in capsys.readouterr().out
    assert not list((Path(arguments[3]) / "jobs").glob("*.job.json")), "a second one was started"


class Driven:
    """The program in a process of its own, with runs that train nothing.

    Its output goes to a file: a pipe would stay open as long as the runs that outlive it.
    """

    def __init__(self, arguments, folder):
        driver, self._output = folder / "driver.py", folder / "output.txt"
        driver.write_text(DRIVER.format(tests=str(HERE), stub=str(HERE / "stub_launch.py")))
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(driver), *arguments],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self):
        return self._output.read_text()

    def wait(self):
        return self.process.wait(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_study_stops_its_runs_by_one_signal_and_goes_on(number, study, tmp_path):
    arguments = study("mid")
    (run_dir,) = runs_of(arguments).values()
    driven = Driven(arguments, tmp_path)
    wait_for((run_dir / "config.json").exists)
    time.sleep(0.5)
    # A key on a terminal reaches the whole process group.
    send = os.killpg if number == signal.SIGINT else os.kill
    send(driven.process.pid, number)
    assert driven.wait() == 75, driven.output
    assert "the same command goes on with 1 runs" in driven.output
    log = next((Path(arguments[3]) / "jobs").glob("*.log")).read_text()
    assert log == "stopped by 1 signal(s)\n"
    (run_dir.parent / "go").touch()
    driven = Driven(arguments, tmp_path)
    assert driven.wait() == 0 and "1 of 1 runs done" in driven.output
    assert starts(run_dir) == 2


def test_runs_survive_a_killed_study_and_are_adopted(study, tmp_path):
    arguments = [*study("mid", seeds=(0, 1)), "--jobs", "2"]
    first, second = runs_of(arguments).values()
    driven = Driven(arguments, tmp_path)
    wait_for(lambda: all((path / "config.json").exists() for path in (first, second)))
    driven.process.kill()
    driven.wait()
    driven = Driven(arguments, tmp_path)
    wait_for(lambda: driven.output.count("adopted digits_vgg16/mid/seed-") == 2)
    (first.parent / "go").touch()
    assert driven.wait() == 0 and "2 of 2 runs done" in driven.output
    assert starts(first) == starts(second) == 1


def test_an_adopted_run_that_dies_is_started_again(study, tmp_path):
    arguments = study("mid")
    (run_dir,) = runs_of(arguments).values()
    driven = Driven(arguments, tmp_path)
    wait_for((run_dir / "config.json").exists)
    driven.process.kill()
    driven.wait()
    driven = Driven(arguments, tmp_path)
    wait_for(lambda: "adopted digits_vgg16/mid/seed-0" in driven.output)
    record = next((Path(arguments[3]) / "jobs").glob("*.job.json"))
    process = json.loads(record.read_text())["job"]
    while below := Path(f"/proc/{process}/task/{process}/children").read_text().split():
        (process,) = below
    os.kill(int(process), signal.SIGKILL)
    (run_dir.parent / "go").touch()
    assert driven.wait() == 0 and "1 of 1 runs done" in driven.output, driven.output
    assert starts(run_dir) == 2


@pytest.mark.slow
def test_killed_twice_a_study_gives_the_same_bits(tmp_path, monkeypatch):
    """Real training on digits: once undisturbed, once with study and run killed, then the study."""
    short = {"epochs": 3, "batch_size": 64, "decay_epochs": (2,), "data.train_examples": 640}
    short |= {"model.width": 0.0625, "model.classifier_width": 16, "log.tensorboard": False}
    file = tmp_path / "tiny.py"
    file.write_text(
        "from collab_jax.study import Cell, Study, Table\n"
        "def get_study():\n"
        f"    cell = Cell('digits', 'baseline', 'digits_vgg16', overrides={short})\n"
        "    return Study('s', (Table('t', (cell,)),), pictures=False)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    # The four starts compile one program once.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

    def command(out):
        words = ["-m", "collab_jax.study", "--study", str(file), "--out", str(tmp_path / out)]
        return [sys.executable, *words, "--threads", "1"]

    subprocess.run(
        command("straight"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    (run,) = study_runs(load_study(str(file))[1], tmp_path / "killed")
    run_dir = tmp_path / "killed" / run.name

    def lines():
        path = run_dir / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL)
    wait_for(lambda: lines() >= 2, 200)
    process.kill()
    holder = (run_dir / ".lock").read_text()
    os.kill(int(holder.split()[1]), signal.SIGKILL)
    process.wait()
    process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL)
    wait_for(lambda: (run_dir / ".lock").read_text() not in ("", holder), 200)
    process.kill()
    process.wait()
    done = subprocess.run(command("killed"), check=True, capture_output=True, text=True)
    assert "1 of 1 runs done" in done.stdout
    assert_same_run(run_dir, tmp_path / "straight" / run.name)


def test_slurm_gets_the_parameters_and_a_missing_one_is_told(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--slurm: .*slurm"):
        launchers.Engine(tmp_path / "none", {})
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("sbatch", 'cp "$1" "$SBATCH_COPY"; echo "Submitted batch job 4711"'),
        ("srun", ":"),
        ("sacct", 'echo "JobID|State"; echo "4711|PENDING"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SBATCH_COPY", str(tmp_path / "submitted.sh"))
    parameters = launchers.parse_slurm(["slurm_partition=gpu", "timeout_min=90", "gpus_per_node=1"])
    assert parameters == {"slurm_partition": "gpu", "timeout_min": 90, "gpus_per_node": 1}
    engine = launchers.Engine(tmp_path / "jobs", parameters)
    job = engine.submit(CommandJob(["true"], "log", "outcome"), "a run")
    script = (tmp_path / "submitted.sh").read_text()
    for line in ("--partition=gpu", "--time=90", "--gpus-per-node=1"):
        assert f"#SBATCH {line}\n" in script
    assert job.id == "4711"
    found = engine.find({"cluster": "slurm", "job": "4711"})
    assert found is not None and found.id == "4711", "a job that waits in the queue is adopted"
    with pytest.raises(UserError, match="unknown_key"):
        launchers.Engine(tmp_path / "jobs", {"unknown_key": 1})


def test_a_number_that_now_belongs_to_another_program_is_not_adopted(tmp_path):
    engine = launchers.Engine(tmp_path)
    record = {"cluster": "local", "host": os.uname().nodename, "job": str(os.getppid())}
    with subprocess.Popen(["sleep", "60"]) as other:
        assert engine.find({**record, "job": str(other.pid)}) is None
        assert engine.find({**record, "host": "elsewhere", "job": "1"}) is None
        other.kill()


def test_each_run_has_its_environment(study, stub, tmp_path, monkeypatch):
    monkeypatch.delenv("NPROC", raising=False)
    arguments = [*study("baseline", "out"), "--jobs", "2", "--threads", "1", "--gpus", "3,5"]
    assert program.main(arguments) == 0
    records = [json.loads(p.read_text()) for p in (tmp_path / "out" / "jobs").glob("*.job.json")]
    environments = [record["environment"] for record in records]
    assert json.loads((tmp_path / "out" / "study.json").read_text())["threads"] == 1
    assert all(environment["NPROC"] == "1" for environment in environments)
    assert sorted(e["CUDA_VISIBLE_DEVICES"] for e in environments) == ["3", "5"]


def test_a_study_keeps_its_threads(study, stub, tmp_path, capsys):
    arguments = study("baseline")
    record = tmp_path / "out" / "study.json"
    for more, threads, warned in (
        (["--threads", "1"], 1, False),
        ([], 1, False),
        (["--flops"], 1, False),
        (["--threads", "2"], 2, True),
    ):
        assert program.main([*arguments, *more]) == 0
        assert json.loads(record.read_text())["threads"] == threads
        assert ("warning: --threads was 1 and is 2" in capsys.readouterr().err) == warned
