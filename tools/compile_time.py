"""Where the time before the first step goes: tracing, lowering and XLA, each in a new process.

Commands:
    python tools/compile_time.py runs                       # this checkout, by method
    python tools/compile_time.py runs --checkout OTHER ...  # several versions, in turn
    python tools/compile_time.py parts                      # the four-term step without one part
    python tools/compile_time.py fusions                    # what the four-term step compiles to
    python tools/compile_time.py options                    # XLA's options that could shorten it

`runs` starts the program itself, one step of it, and listens to what JAX reports, so that it
measures any version. No compiled program is kept or read. Times are the processor's, of all
threads: on one core (taskset -c 0) they are the seconds that one waits if nothing else runs there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ALL = "out+mid+pull_push+kernel"
METHODS = ("baseline", ALL)
PARTS = ("nothing", "augmentation", "momentum and weight decay", "backward pass", *ALL.split("+"))
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"xla_backend_optimization_level": 1},
    {"xla_backend_optimization_level": 0},
    {"xla_llvm_disable_expensive_passes": True},
    {"xla_cpu_parallel_codegen_split_count": 1},
    {"xla_cpu_prefer_vector_width": 128},
    {"xla_cpu_use_fusion_emitters": False},
    {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"},
)
SCOPES = ("augment", "optimizer", "trunk", *ALL.split("+"))

_LISTEN = """
import json, os, runpy, sys, time, types
import jax
from jax._src import dispatch

dispatch.time = types.SimpleNamespace(time=time.process_time)  # of all threads

found = {}
NAMES = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "xla",
}
STEPS = ("run", "run_batch")

def listen(event, seconds, fun_name="", **_):
    if event in NAMES and fun_name.removeprefix("jit(").removesuffix(")") in STEPS:
        found[NAMES[event]] = seconds
        if len(found) == 3:
            print("\\n" + json.dumps(found), flush=True)
            os._exit(0)

jax.monitoring.register_event_duration_secs_listener(listen)
sys.argv = ["launch.py", *sys.argv[2:]]
sys.path.insert(0, "")
runpy.run_path("launch.py", run_name="__main__")
"""


def _new_process(code: str, arguments: Sequence[str], checkout: Path) -> dict[str, float]:
    """What a program prints last, as JSON."""
    environment = os.environ | {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(checkout),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def one_step(checkout: Path, method: str) -> dict[str, float]:
    """Seconds of the train step's trace, lowering and compilation in the program itself."""
    with tempfile.TemporaryDirectory() as workdir:
        arguments = ["launch", f"--config=configs/digits_vgg16.py:{method}", "--config.steps=1"]
        arguments += [f"--workdir={workdir}", "--config.log.tensorboard=false"]
        return _new_process(_LISTEN, arguments, checkout)


def step_without(part: str) -> tuple[Any, Callable[[], Any], Any]:
    """A four-term step that lacks a part, what makes its state, and its batch's shapes."""
    import dataclasses
    from functools import partial

    import jax
    import optax

    from collab_jax import data
    from collab_jax.config import recipes
    from collab_jax.data import DataInfo
    from collab_jax.training import step
    from collab_jax.training.build import create_experiment
    from collab_jax.training.state import Batch, create_train_state

    method = "+".join(term for term in ALL.split("+") if term != part)
    config = recipes.load("digits_vgg16", method)
    info = DataInfo.of(data.load("digits"))
    made = create_experiment(config, info, 11)
    settings = made.settings
    if part == "augmentation":
        settings = dataclasses.replace(settings, crop=False, flip=False)
    if part == "momentum and weight decay":
        settings = dataclasses.replace(settings, optimizer=optax.sgd(settings.learning_rate))
    init = partial(
        create_train_state, made.model, made.objective, settings.optimizer, info.image_shape, seed=0
    )
    size = config.batch_size

    def array(shape: tuple[int, ...], dtype: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    batch = Batch(
        images=array((size, *info.image_shape), "uint8"),  # type: ignore[arg-type]
        labels=array((size,), "int32"),  # type: ignore[arg-type]
        indices=array((size,), "int32"),  # type: ignore[arg-type]
    )

    def forward(state, batch):
        inputs, labels = step._examples(settings, state, batch)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        outputs, _ = made.objective.forward(
            made.model, variables, state.heads, inputs, labels, rngs={"dropout": state.key}
        )
        return made.objective(outputs, state.step)

    whole = forward if part == "backward pass" else partial(step.train_step, settings)
    return jax.jit(whole), init, batch


def without(part: str) -> dict[str, float]:
    """Seconds of a four-term step that lacks a part; a program of its own."""
    import jax

    jitted, init, batch = step_without(part)
    state = jax.eval_shape(init)
    began = time.process_time()
    traced = jitted.trace(state, batch)
    at_trace = time.process_time()
    lowered = traced.lower()
    at_lowering = time.process_time()
    lowered.compile()
    return {
        "trace": at_trace - began,
        "lower": at_lowering - at_trace,
        "xla": time.process_time() - at_lowering,
    }


def fusions() -> str:
    """The step's fused loops by the part that they are of: calls, programs, instructions of these.

    Loops of one text are compiled once.
    """
    import jax

    jitted, init, batch = step_without("nothing")
    text = jitted.lower(jax.eval_shape(init), batch).compile().as_text()
    bodies = dict(re.findall(r"^(%[\w.-]+) \(.*?\{\n(.*?)^\}", text, re.M | re.S))

    def plain(name: str) -> str:
        body = re.sub(r", (metadata|backend_config)=\{.*", "", bodies[name])
        called = [other for other in re.findall(r"=(%[\w.-]+)", body) if other in bodies]
        numbers: dict[str, int] = {}
        body = re.sub(
            r"%[\w.-]+", lambda found: f"%{numbers.setdefault(found[0], len(numbers))}", body
        )
        return body + "".join(map(plain, called))

    calls: dict[str, list[str]] = {}
    entry = text[text.index("\nENTRY") :]
    for line in re.findall(r"^.* fusion\(.*$", entry, re.M):
        name = (re.findall(r'op_name="([^"]*)"', line) or [""])[0]
        scopes = [scope for scope in SCOPES if re.search(rf"\b{scope}\b", name)]
        backward = ", backward" if "transpose(" in name else ""
        part = (scopes or ["finite, sums, step's keys"])[0] + backward
        calls.setdefault(part, []).append(plain(re.findall(r"calls=(%[\w.-]+)", line)[0]))
    lines = ["| part | calls | different | instructions |", "|---|---:|---:|---:|"]
    for part, found in sorted(calls.items(), key=lambda item: -len(set(item[1]))):
        size = sum(body.count("\n") for body in set(found))
        lines.append(f"| {part} | {len(found)} | {len(set(found))} | {size} |")
    return "\n".join(lines)


def with_options() -> str:
    """Processor seconds of XLA and of a step, with each of its options that could shorten it."""
    import jax
    import numpy as np

    jitted, init, shapes = step_without("nothing")
    draw = np.random.default_rng(0)
    batch = jax.tree.map(lambda x: draw.integers(0, 10, x.shape).astype(x.dtype), shapes)
    lowered = jitted.lower(init(), batch)
    lines = ["| option | XLA s | step ms, median | loss |", "|---|---:|---:|---:|"]
    for options in OPTIONS:
        began = time.process_time()
        step = lowered.compile(compiler_options=options)
        compiled = time.process_time() - began
        state, report = jax.block_until_ready(step(init(), batch))
        loss, steps = float(report["loss"]), []
        for _ in range(15):
            began = time.process_time()
            state, _ = jax.block_until_ready(step(state, batch))
            steps.append(time.process_time() - began)
        name = ", ".join(f"`{key}={value}`" for key, value in options.items()) or "none"
        lines.append(f"| {name} | {compiled:.1f} | {1e3 * np.median(steps):.1f} | {loss:.7g} |")
    return "\n".join(lines)


def _table(title: str, found: dict[tuple[str, ...], list[dict[str, float]]]) -> str:
    """Medians, and the range of the sums."""
    lines = [f"| {title} | trace s | lower s | XLA s | together s | from | to |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for names, runs in found.items():
        parts = [statistics.median(run[name] for run in runs) for name in ("trace", "lower", "xla")]
        sums = [sum(run.values()) for run in runs]
        figures = [*parts, statistics.median(sums), min(sums), max(sums)]
        lines.append(f"| {', '.join(names)} | {' | '.join(f'{x:.1f}' for x in figures)} |")
    return "\n".join(lines)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description="Where the time before the first step goes.")
    parser.add_argument("what", choices=["runs", "parts", "part", "fusions", "options"])
    parser.add_argument("--checkout", type=Path, nargs="+", default=[ROOT])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without", default="nothing")
    options = parser.parse_args()
    found: dict[tuple[str, ...], list[dict[str, float]]] = {}
    if options.what == "part":
        print(json.dumps(without(options.without)))
        return
    if options.what in ("fusions", "options"):
        print(fusions() if options.what == "fusions" else with_options())
        return
    for _ in range(options.repeats):
        if options.what == "runs":
            for method in options.methods:
                for checkout in options.checkout:
                    key = (checkout.resolve().name, method)
                    found.setdefault(key, []).append(one_step(checkout.resolve(), method))
        else:
            for part in PARTS:
                code = f"import runpy; runpy.run_path({__file__!r}, run_name='__main__')"
                times = _new_process(code, ["part", f"--without={part}"], ROOT)
                found.setdefault((part,), []).append(times)
    print(_table("version, method" if options.what == "runs" else "without", found))


if __name__ == "__main__":
    main()
