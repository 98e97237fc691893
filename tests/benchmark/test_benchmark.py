"""Plans for GPUs that are not there, and steps timed here."""

import importlib.util
import json
from pathlib import Path

import pytest

from collab_jax.benchmark import __main__ as program
from collab_jax.benchmark import peak_memory, report, step_time
from collab_jax.benchmark import plan as planning
from collab_jax.benchmark.collectives import collectives, collectives_markdown, summary
from collab_jax.benchmark.compiling import count_operations
from collab_jax.benchmark.gpus import GPUS
from collab_jax.benchmark.workload import Case
from collab_jax.errors import UserError

FIGURES = {
    "convolutions": 38,
    "matrix_products": 9,
    "flops": 2e9,
    "peak_bytes": 100 << 20,
    "temporary_bytes": 60 << 20,
    "params_bytes": 10,
    "optimizer_bytes": 10,
    "heads_bytes": 0,
}


def row(method, **figures):
    return {**Case(method=method).to_json(), "gpu": "h100", **FIGURES, **figures}


def test_counts_come_from_the_programs_text():
    text = """
      %a = custom-call(%x), custom_call_target="__cudnn$convForward", backend_config={}
      %b = custom-call(%x), custom_call_target="__cudnn$convBackwardFilter"
      %c = custom-call(%x), custom_call_target="__cublas$gemm"
      ROOT %dot.1 = f32[2,2]{1,0} dot(%p, %q), metadata={op_name="dot_general"}
    """
    assert count_operations(text) == {"convolutions": 2, "matrix_products": 2}


def test_the_table_gives_ratios_to_baseline_and_says_that_nothing_ran():
    rows = [
        row("baseline"),
        row("mid", peak_bytes=109 << 20, heads_bytes=1 << 20, flops=3e9),
        row("multi_instance", peak_bytes=12 << 30),
    ]
    text = report.markdown(rows, "the command")
    assert planning.NOTE == "planned by XLA for the GPU, not run on one"
    assert planning.NOTE in text and "`the command`" in text
    assert "| mid | 38 | 9 | 3.0 | 1.500 | 109.0 | 1.090 | 60.0 | 2.0 |" in text
    assert "all but multi_instance fit" in text


PROGRAM = """
  %r = f32[64,3]{1,0} all-reduce(%x), channel_id=1
  %s = f32[10]{0} all-reduce-start(%y), channel_id=2
  %g = ((f32[8,32]{1,0}, bf16[8]{0}), (f32[64,32]{1,0}, bf16[64]{0})) all-gather-start(%a, %b)
  %h = (f32[2,4,4,8]{3,2,1,0}, f32[16,4,4,8]{3,2,1,0}) all-gather-start(%c), dimensions={0}
  %d = f32[10]{0} all-reduce-done(%s)
"""


def test_what_devices_send_is_read_from_the_program():
    found = summary(collectives(PROGRAM))
    assert found["all-reduce"] == {"count": 2, "bytes": 4 * (64 * 3 + 10)}
    gathered = 4 * 8 * 32 + 2 * 8 + 4 * 2 * 4 * 4 * 8
    assert found["all-gather"] == {"count": 2, "bytes": gathered}
    assert found["gathered_feature_maps"] == 1
    rows = [{**row(method), "devices": 8, "collectives": found} for method in ("baseline", "mid")]
    text = collectives_markdown(rows, "the command")
    assert "over 8 x NVIDIA H100" in text and "not run on any" in text
    assert "| mid | 0 | 2: 1 | 2: 2 | 0: 0 | 0: 0 | 0: 0 | 0 | 1 |" in text


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_eight_gpus_gather_no_feature_maps():
    overrides = {"model.width": 0.0625, "model.classifier_width": 16}
    case = Case(method="out+mid+pull_push+kernel", batch_size=16, image_size=8, overrides=overrides)
    figures = planning.plan(case, "h100", devices=8)
    sent = figures["collectives"]
    assert sent["all-reduce"]["bytes"] >= figures["params_bytes"]
    assert sent["all-gather"]["count"] > 0 and sent["gathered_feature_maps"] == 0


def test_what_is_alive_at_the_peak_is_read_from_xlas_texts(tmp_path):
    """Two maps of the trunk, one of them alive at the peak, a tuple's members, a copied weight."""
    stem = tmp_path / "module_0001.jit_train_step.sm_9.0a_gpu_after_optimizations"
    Path(f"{stem}-live-range.txt").write_text(
        "HloLiveRange (max 9):\n  InstructionSequence:\n    0:a\n  BufferLiveRange:\n"
        "    early{}:0-2\n    map{}:1-6\n    pair{0}:3-5\n    pair{1}:6-8\n    copy.1{}:4-8\n"
    )
    Path(f"{stem}-buffer-assignment.txt").write_text(
        "BufferAssignment:\n"
        "allocation 0: size 4096, parameter 0, shape |f32[1024]|:\n"
        " value: <1 weight @0> (size=4096,offset=0): f32[1024]{0}\n"
        "allocation 7: size 99, preallocated-temp:\n"
        " value: <2 early @0> (size=120,offset=0): f32[30]{0}\n"
        " value: <3 map @0> (size=100,offset=0): f32[25]{0}\n"
        " value: <4 pair{0} @0> (size=40,offset=0): f32[10]{0}\n"
        " value: <5 pair{1} @0> (size=80,offset=0): f32[20]{0}\n"
        " value: <6 copy.1 @0> (size=100,offset=0): f32[25]{0}\n"
    )
    Path(f"{stem}.txt").write_text(
        '  %early = f32[30] fusion(), metadata={op_name="jit(train_step)/jvp(trunk)/Network/a"}\n'
        '  %map = f32[25] fusion(), metadata={op_name="jit(train_step)/jvp(trunk)/Network/b"}\n'
        '  %pair = (f32[10], f32[20]) fusion(), metadata={op_name="x/transpose(jvp(mid))/Local"}\n'
    )
    values = peak_memory.read_values(tmp_path)
    assert sum(value.size for value in values) == 440
    parts = peak_memory.by_part(peak_memory.at_peak(values))
    assert {part: size for part, size in parts.items() if size} == {
        "forward pass": 100,
        "other": 100,
        "heads": 80,
    }
    rows = [
        {"name": "baseline", "state_bytes": 0, "held": {**parts, "heads": 0}},
        {"name": "mid", "state_bytes": 1 << 20, "held": {**parts, "heads": 3 << 20}},
    ]
    text = peak_memory.held_markdown(rows, "a title", "the command")
    assert planning.NOTE in text and "| mid | 1.0 (+1.0) | 3.0 (+3.0) | 0.0 (+0.0) |" in text


def test_changed_keys_stand_beside_the_method():
    cases = planning.economical_cases(Case())
    assert [case.method for case in cases] == ["pull_push", "out+mid+pull_push+kernel"]
    rows = [{**case.to_json(), "gpu": "h100", **FIGURES} for case in cases]
    text = report.markdown([row("baseline"), *rows], "")
    assert "| pull_push (pull_push.projection_pool=8) | 38 |" in text


def test_the_paper_case_stands_beside_the_papers_figures():
    cases = planning.resnet101_cases()
    sizes = {"baseline": 8_000_000_000, "tree": 12_000_000_000, "out": 8_008_000_000}
    rows = [
        {**case.to_json(), "gpu": "h100", **FIGURES, "peak_bytes": sizes[case.method]}
        for case in cases
    ]
    text = report.markdown(rows, "")
    assert "| tree | 12.00 | 1.500 | 13.16 | 1.501 |" in text
    assert "| out | 8.01 | 1.001 | 8.78 | 1.001 |" in text


def test_the_chart_is_drawn(tmp_path):
    report.draw([row("baseline"), row("mid", peak_bytes=109 << 20)], tmp_path / "plan.svg")
    assert "<svg" in (tmp_path / "plan.svg").read_text()


def test_a_missing_compiler_names_the_extra(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'collab-jax\[plan\]'"):
        planning.check_compiler()
    assert program.main(["plan", "--output", str(tmp_path / "plan")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: plan: ") and message.count("\n") == 1


def test_a_plan_goes_on_where_it_stopped(monkeypatch, tmp_path, capsys):
    planned = []

    def fake(case, gpu, devices):
        planned.append((case.method, gpu))
        return {**case.to_json(), "gpu": gpu, **FIGURES, "devices": devices}

    monkeypatch.setattr(planning, "plan", fake)
    path = tmp_path / "plan.json"
    planning.plan_all([Case()], ["h100"], path)
    assert "not planned again" not in capsys.readouterr().out
    rows = planning.plan_all([Case(), Case(method="mid")], ["h100", "a100"], path)
    assert planned == [("baseline", "h100"), ("mid", "h100"), ("baseline", "a100"), ("mid", "a100")]
    kept = [line for line in capsys.readouterr().out.splitlines() if "not planned again" in line]
    assert len(kept) == 1 and kept[0].startswith("h100 vgg16") and str(path) in kept[0]
    assert json.loads(path.read_text()) == {"note": planning.NOTE, "rows": rows}
    planning.plan_all([Case()], ["h100"], path, devices=8)
    assert planned[4:] == [("baseline", "h100")], "another number of devices is another plan"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--output", "x", "--methods", "midd"], "unknown 'midd'"),
        (["plan", "--output", "x", "--gpus", "v100"], "invalid choice: 'v100'"),
        (["step"], "--output"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_torch_has_the_vgg_alone(capsys, tmp_path):
    arguments = ["step", "--model", "resnet18", "--against", "torch", "--output", str(tmp_path)]
    assert program.main(arguments) == 2
    assert "expected --model vgg16, got resnet18" in capsys.readouterr().err


def test_steps_are_timed_in_turn_after_the_warm_up():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = step_time.time_in_turn(steps, repeats=3, warm_up=1)
    assert calls == ["a", "b"] + ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


@pytest.mark.slow
def test_a_step_is_measured():
    overrides = {"model.width": 0.02, "model.classifier_width": 8}
    case = Case(batch_size=4, image_size=8, overrides=overrides)
    rows = step_time.measure([case], repeats=3)
    assert [r["name"] for r in rows] == ["baseline"]
    assert 0 < rows[0]["fastest"] <= rows[0]["median"] <= rows[0]["slowest"]
    assert rows[0]["peak_bytes"] > 50 << 20 and rows[0]["flops"] > 0
    text = step_time.markdown(rows, "VGG", "the command")
    assert "| baseline | " in text and "| 1.00 | 1.00 | " in text


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("method", "convolutions"), [("baseline", 38), ("out+mid+pull_push+kernel", 38 + 3 * 26)]
)
def test_a_gpu_runs_no_more_convolutions_than_the_terms_need(method, convolutions):
    overrides = {"model.width": 0.125, "model.classifier_width": 64}
    figures = planning.plan(Case(method=method, batch_size=16, overrides=overrides), "h100")
    assert figures["convolutions"] == convolutions
    assert figures["state_bytes"] < figures["peak_bytes"] < GPUS["rtx2080ti"].memory_gib << 30
    assert figures["flops"] > 0


def test_a_step_of_a_narrow_classifier_says_so(monkeypatch, tmp_path):
    timed = []

    def fake(cases, **_):
        timed.extend(cases)
        figures = {"median": 1.0, "fastest": 1.0, "slowest": 1.0, "images_per_second": 1.0}
        figures |= {"flops": 1.0, "compile_seconds": 1.0, "peak_bytes": 1}
        return [{"name": case.method, **figures} for case in cases]

    monkeypatch.setattr(step_time, "measure", fake)
    arguments = ["step", "--methods", "mid", "--output", str(tmp_path / "step")]
    assert not program.main([*arguments, "--width", "0.25", "--classifier-width", "256"])
    assert timed[0].overrides == {"model.width": 0.25, "model.classifier_width": 256}
    assert "32 x 32, classifier 256 wide." in (tmp_path / "step.md").read_text()
    program.main(arguments)
    assert "classifier" not in (tmp_path / "step.md").read_text().partition("Command")[0]
