"""`benchmark gpu`: its cells measured in tiny sizes on the CPU, its records, its page."""

import json
import signal
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from collab_jax.benchmark import __main__ as program
from collab_jax.benchmark.gpu import children, command, evidence, measure, parity
from collab_jax.benchmark.gpu.cells import BEST, FULL, TINY, cells_of, label
from collab_jax.benchmark.gpu.flags import PARTS
from collab_jax.benchmark.gpu.page import page
from collab_jax.benchmark.gpu.peaks import peak_flops
from collab_jax.benchmark.gpu.records import RECORDS, Records
from collab_jax.benchmark.gpu.repeat import random_images
from collab_jax.benchmark.gpu.worker import measured
from collab_jax.benchmark.workload import Case
from collab_jax.errors import UserError

MACHINE = {
    "platform": "gpu",
    "device": "NVIDIA H200",
    "jax": "0.11.2",
    "plugin": "jax-cuda13-plugin 0.11.2",
    "python": "3.12.3",
    "git_revision": None,
}
ONE = replace(TINY, methods=("baseline",), precisions=("float32",))


def figures_of(cell):
    result = measured(cell)
    assert "figures" in result, result["error"]
    return result["figures"]


def record(cell, **rest):
    return {"cell": cell, "machine": MACHINE, "seconds": 1.0, **rest}


def test_every_part_has_cells_that_json_keeps():
    for part in PARTS:
        cells = cells_of(part, FULL)
        assert cells and json.loads(json.dumps(cells)) == cells
        assert len({json.dumps(cell) for cell in cells}) == len(cells)
    assert len(cells_of("step", FULL)) == 2 * 3
    assert label(cells_of("parity", FULL)[0]) == "parity vgg16 baseline"


def test_peaks_are_those_of_the_card():
    assert peak_flops("NVIDIA H200", "bfloat16") == 989.4e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "float32") == 156e12
    assert peak_flops("NVIDIA H100 PCIe", "float32 highest") == 51.2e12
    assert peak_flops("NVIDIA GeForce RTX 2080 Ti", "float32") == 13.4e12
    assert peak_flops("NVIDIA GeForce RTX 2080 Ti", "bfloat16") is None
    assert peak_flops("NVIDIA L4", "float32") == 60e12
    assert peak_flops("NVIDIA L40", "float32") is None
    assert peak_flops("cpu", "float32") is None


def test_parity_of_a_device_with_itself_and_a_difference_that_is_found():
    case = Case(**cells_of("parity", ONE)[0]["case"])
    step, init = case.step_and_init()
    before = init()
    after, _ = jax.jit(step)(before, case.batch())
    same = parity.compared(after, after)
    assert same["within"] and same["gradients"]["largest"] == 0.0
    assert same["gradients"]["arrays"] > 40 and same["statistics"]["arrays"] == 26
    leaves, tree = jax.tree.flatten(after.opt_state)
    # One value of one array, by twice the bound.
    place = next(i for i, leaf in enumerate(leaves) if leaf.ndim == 4)
    changed = np.array(leaves[place])
    changed.flat[0] += 2 * parity.BOUNDS["gradients"] * np.abs(changed).max()
    leaves[place] = changed
    other = parity.compared(after, after.replace(opt_state=jax.tree.unflatten(tree, leaves)))
    assert not other["within"]
    assert 1.9e-2 < other["gradients"]["largest"] < 2.1e-2
    assert other["loss"]["largest"] == other["statistics"]["largest"] == 0.0


def test_what_is_not_finite_is_no_parity():
    found = parity.differences({"a": np.ones(2)}, {"a": np.array([1.0, np.nan])})
    assert found == {"['a']": float("inf")}
    assert parity.differences({"a": np.zeros(2)}, {"a": np.full(2, 3.0)}) == {"['a']": 3.0}


@pytest.mark.slow
def test_programs_are_timed_and_their_memory_is_planned():
    (cell,) = cells_of("step", ONE)
    rows = measure.step_times(cell)["rows"]
    assert not [row["error"] for row in rows if "error" in row]
    assert [row["name"] for row in rows] == ["baseline, step", "baseline, chunk"]
    for row in rows:
        assert 0 < row["fastest"] <= row["median"] <= row["slowest"]
        assert row["images_per_second"] == pytest.approx(8 / row["median"])
        assert row["flops"] > 0 and row["planned_bytes"] > 0
        assert row["utilisation"] is None
    (cell,) = cells_of("memory", ONE)
    memory = measure.memory(cell)["rows"]
    assert {row["name"] for row in memory} == {"baseline, step", "baseline, chunk"}
    assert all(row["device_bytes"] is None and row["planned_bytes"] > 0 for row in memory)


def test_a_method_that_fails_leaves_the_others(monkeypatch):
    real = measure.prepare

    def prepare(case, *rest):
        if case.method == "out+mid":
            raise MemoryError("out of memory")
        return real(case, *rest)

    monkeypatch.setattr(measure, "prepare", prepare)
    cell = cells_of("step", replace(TINY, precisions=("float32",)))[0]
    rows = measure.step_times(cell)["rows"]
    assert [row["error"] for row in rows if "error" in row] == ["MemoryError: out of memory"]
    assert [row["name"] for row in rows] == ["baseline, step", "baseline, chunk", "out+mid"]
    text = page([record(cell, figures={"rows": rows, "peak_flops": None})], [], "c")
    assert "- out+mid: failed: MemoryError: out of memory" in text and "| baseline, step |" in text


@pytest.mark.slow
def test_the_run_in_deterministic_mode_repeats():
    first, second = cells_of("repeat", TINY)
    found = [{"figures": figures_of(cell)} for cell in (first, second)]
    assert found[0] == found[1]
    text = page([record(c, **r) for c, r in zip((first, second), found, strict=True)], [], "c")
    assert "Equal bit for bit." in text
    found[1]["figures"]["sha256"] = "0"
    text = page([record(c, **r) for c, r in zip((first, second), found, strict=True)], [], "c")
    assert "**Not equal.**" in text


def test_the_study_gives_a_baseline_as_many_flops(tmp_path):
    (cell,) = cells_of("study", TINY)
    counted = figures_of(cell)
    assert counted[BEST] > counted["baseline"] > 0
    file = tmp_path / "study.py"
    data = tmp_path / "images.npz"
    random_images(data, 40, 8)
    counted = {"baseline": 2.0, BEST: 3.0}
    file.write_text(evidence.study_file(replace(FULL, seeds=(0, 1)), data, counted))
    from collab_jax.study import load_study
    from collab_jax.study.task import study_runs

    _, study = load_study(str(file))
    runs = study_runs(study, tmp_path)
    configs = [run.config for run in runs]
    assert [c.epochs for c in configs] == [200, 200, 200, 200, 300] * 2
    assert [c.seed for c in configs] == [0] * 5 + [1] * 5
    assert {c.method for c in configs} == {"baseline", BEST, "mid", "out"}
    assert {(c.model.width, c.data.name) for c in configs} == {(1.0, str(data))}
    assert study.tables[0].contrasts == ((BEST, "baseline at equal compute"),)


def test_records_keep_the_newest_and_survive_a_torn_line(tmp_path):
    records = Records(tmp_path)
    records.add(record({"part": "step"}, error="no memory"))
    assert records.done({"part": "step"}) is None
    records.add(record({"part": "step"}, figures={"a": 1}))
    with (tmp_path / RECORDS).open("a") as file:
        file.write('{"cell": {"part": "mem')
    again = Records(tmp_path)
    assert again.done({"part": "step"})["figures"] == {"a": 1} and len(list(again)) == 1
    again.add(record({"part": "memory"}, figures={}))
    assert len(list(Records(tmp_path))) == 2
    lines = (tmp_path / RECORDS).read_text().splitlines()
    (tmp_path / RECORDS).write_text("\n".join(["{", *lines]))
    with pytest.raises(UserError, match="line 1 is damaged"):
        Records(tmp_path)


def test_figures_of_two_devices_are_not_mixed(tmp_path):
    records = Records(tmp_path)
    records.add(record({"part": "step"}, figures={}))
    records.check_machine(MACHINE)
    with pytest.raises(UserError, match="holds figures of NVIDIA H200, jax 0.11.2, and this is"):
        records.check_machine({**MACHINE, "device": "NVIDIA L4"})


def test_the_page_says_what_ran_where():
    cell = cells_of("parity", FULL)[0]
    worst = {"largest": 1e-6, "where": "kernel", "arrays": 3}
    figures = {"loss_cpu": 2.3, "within": True, **dict.fromkeys(parity.BOUNDS, worst)}
    text = page([record(cell, figures=figures)], ["torch: not there"], "the command")
    assert "Run on the GPU: NVIDIA H200, jax 0.11.2 (jax-cuda13-plugin 0.11.2)" in text
    assert "called planned are XLA's" in text and "`the command`" in text
    assert "| baseline (vgg16, 128 x 3 x 32 x 32) | 2.300000 | 1.0e-06 |" in text
    assert "- torch: not there" in text
    dry = {**record(cell, error="no"), "machine": {**MACHINE, "platform": "cpu", "plugin": None}}
    text = page([dry], [], "")
    assert "A dry run without a GPU" in text and "parity vgg16 baseline: failed: no" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "--minutes 0: expected more than 0"),
        (["--epochs", "0"], "--epochs 0: expected at least 1"),
        (["--skip", *PARTS], "leaves no part to measure"),
        (["--data", "none.npz"], "none.npz: expected an .npz file"),
    ],
)
def test_mistakes_are_told_before_anything_runs(arguments, message, tmp_path, capsys):
    assert program.main(["gpu", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("")
    assert program.main(["gpu", str(tmp_path)]) == 2
    assert "holds thesis.tex and no records.jsonl" in capsys.readouterr().err


def test_data_must_hold_the_four_arrays(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x_train=np.zeros(1))
    assert program.main(["gpu", str(tmp_path / "o"), "--data", str(tmp_path / "x.npz")]) == 2
    assert (
        "expected the arrays x_test.npy, y_test.npy, y_train.npy in it" in capsys.readouterr().err
    )


WORKER = """
import json, os, signal, sys
cells = json.load(sys.stdin)["cells"]
print(json.dumps({"machine": %r}), flush=True)
for cell in cells:
    if cell["case"]["method"] == "out+mid":
        print("no more memory", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({"figures": %r, "seconds": 1.0}), flush=True)
"""


def test_a_worker_that_is_killed_costs_one_cell(tmp_path, monkeypatch, capsys):
    """Only what has no figures is measured again, too."""
    worst = {"largest": 0.0, "where": "kernel", "arrays": 1}
    figures = {"loss_cpu": 2.0, "within": True, **dict.fromkeys(parity.BOUNDS, worst)}
    file = tmp_path / "worker.py"
    file.write_text(WORKER % ({**MACHINE, "git_revision": "abc"}, figures))
    real, started = subprocess.Popen, []

    def popen(arguments, **options):
        started.append(arguments)
        return real([sys.executable, str(file)], **options)

    monkeypatch.setattr(children.subprocess, "Popen", popen)
    monkeypatch.setattr(
        command, "FULL", replace(FULL, models=("vgg16",), methods=("baseline", "out+mid", "mid"))
    )
    out = tmp_path / "out"
    arguments = ["gpu", str(out), "--only", "parity"]
    assert program.main(arguments) == 1
    text = (out / "gpu.md").read_text()
    assert "parity vgg16 out+mid: failed: killed by signal 9: no more memory" in text
    assert "| baseline (vgg16" in text and "| mid (vgg16" in text
    assert len(started) == 3  # for the device, until the death, and for the rest
    assert program.main(arguments) == 1
    assert len(started) == 5
    assert "2 cells measured" in capsys.readouterr().out


def test_the_time_ends_a_worker(tmp_path):
    deadline = children.Deadline(0.5 / 60)
    process = subprocess.Popen(["sleep", "60"])
    deadline.end(process)
    assert process.wait(20) == -signal.SIGTERM and deadline.passed


def test_no_gpu_is_told(tmp_path, capsys):
    assert program.main(["gpu", str(tmp_path / "out")]) == 2
    assert "JAX finds no GPU but cpu; expected an NVIDIA GPU" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "TINY", ONE)
    arguments = ["gpu", str(tmp_path / "out"), "--tiny", "--skip", "torch", "repeat", "study"]
    assert program.main(arguments) == 0
    text = (tmp_path / "out" / "gpu.md").read_text()
    assert "A dry run without a GPU" in text and "| baseline, chunk |" in text
    assert "3 cells measured" in capsys.readouterr().out
    before = (tmp_path / "out" / RECORDS).read_bytes()
    assert program.main(arguments) == 0
    assert (tmp_path / "out" / RECORDS).read_bytes() == before
