"""The commands `plan`, `held`, `collectives`, `step` and `gpu` of `collab_jax.benchmark`."""

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from collab_jax.benchmark.gpu.flags import add_arguments
from collab_jax.benchmark.gpus import GPUS
from collab_jax.config import MODEL_STAGES, parse_method
from collab_jax.errors import RunError, UserError
from collab_jax.runs.environment import leave_out_idle_plugins

_MODELS = tuple(MODEL_STAGES)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m collab_jax.benchmark", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser(
        "plan", help="compile train steps for GPUs that need not be there (extra `plan`)"
    )
    plan.add_argument("--gpus", nargs="+", choices=GPUS, default=list(GPUS))
    plan.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    plan.add_argument(
        "--paper-case",
        action="store_true",
        help="only ResNet-101, 64 x 3 x 64 x 64: baseline, tree, hierarchical dropout",
    )
    plan.add_argument(
        "--remat",
        action="store_true",
        help="plan again with model.remat_heads=True, all but baseline, and with model.remat=True",
    )
    split = commands.add_parser(
        "collectives", help="what GPUs that share a batch send each other (extra `plan`)"
    )
    split.add_argument("--gpus", nargs=1, choices=GPUS, default=["h100"])
    split.add_argument("--devices", type=int, default=8)
    split.add_argument("--model", choices=_MODELS, default="vgg16")
    held = commands.add_parser(
        "held", help="what holds the planned memory at its peak (extra `plan`)"
    )
    held.add_argument("--gpus", nargs=1, choices=GPUS, default=["h100"])
    held.add_argument("--model", choices=_MODELS, default="vgg16")
    step = commands.add_parser("step", help="time train steps on this machine")
    step.add_argument(
        "--against", choices=("torch",), help="time PyTorch beside it (extra `bench`)"
    )
    step.add_argument("--repeats", type=int, default=10, help="timed steps of each program")
    plan.add_argument("--models", nargs="+", choices=_MODELS, default=["vgg16", "resnet18"])
    step.add_argument("--model", choices=_MODELS, default="vgg16")
    step.add_argument("--classifier-width", type=int, default=4096, help="of a VGG's hidden layers")
    for command, batch in ((plan, 128), (step, 64), (split, 128), (held, 128)):
        command.add_argument("--methods", nargs="+", type=_method, default=None)
        command.add_argument("--batch-size", type=int, default=batch)
        command.add_argument("--image-size", type=int, default=32)
        command.add_argument("--width", type=float, default=0.5 if command is step else 1.0)
    for command in (plan, step, split, held):
        command.add_argument(
            "--output", type=Path, required=True, help="file to write, without its ending"
        )
    gpu = commands.add_parser("gpu", help="measure all there is to know on the GPU of this machine")
    add_arguments(gpu, _MODELS, _method)
    return parser


def _method(text: str) -> str:
    try:
        return parse_method(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(arguments)
    command = f"python -m collab_jax.benchmark {' '.join(arguments)}"
    try:
        if options.command == "plan":
            _plan(options, command)
        elif options.command == "collectives":
            _collectives(options, command)
        elif options.command == "held":
            _held(options, command)
        elif options.command == "gpu":
            leave_out_idle_plugins()
            from collab_jax.benchmark.gpu.command import run

            return run(options, command)
        else:
            _step(options, command)
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0


def _plan(options: argparse.Namespace, command: str) -> None:
    # Only the children compile; this process must not look for a device of its own.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from collab_jax.benchmark import report
    from collab_jax.benchmark.plan import (
        METHODS,
        check_compiler,
        dropping_cases,
        economical_cases,
        plan_all,
        resnet101_cases,
    )
    from collab_jax.benchmark.workload import Case

    check_compiler()
    overrides = {} if options.width == 1.0 else {"model.width": options.width}
    if options.paper_case:
        cases = resnet101_cases()
    else:
        cases = []
        for dtype, model in itertools.product(options.dtypes, options.models):
            case = Case(
                model,
                batch_size=options.batch_size,
                image_size=options.image_size,
                dtype=dtype,
                overrides=overrides,
            )
            cases += [replace(case, method=method) for method in options.methods or METHODS]
            if not options.methods:
                cases += economical_cases(case) + dropping_cases(case)
    if options.remat:
        with_heads = [case for case in cases if case.method != "baseline"]
        cases += [
            replace(case, overrides={**case.overrides, key: True})
            for key, chosen in (("model.remat_heads", with_heads), ("model.remat", [*cases]))
            for case in chosen
        ]
    output: Path = options.output
    rows = plan_all(cases, options.gpus, output.with_suffix(".json"))
    output.with_suffix(".md").write_text(report.markdown(rows, command))
    report.draw(rows, output.with_suffix(".svg"))


def _collectives(options: argparse.Namespace, command: str) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    from collab_jax.benchmark.collectives import collectives_markdown
    from collab_jax.benchmark.plan import METHODS, check_compiler, plan_all
    from collab_jax.benchmark.workload import Case

    check_compiler()
    if options.devices < 2 or options.batch_size % options.devices:
        raise UserError(
            f"--devices {options.devices}: expected at least 2, and a factor of --batch-size "
            f"{options.batch_size}"
        )
    overrides = {} if options.width == 1.0 else {"model.width": options.width}
    cases = [
        Case(options.model, method, options.batch_size, options.image_size, overrides=overrides)
        for method in options.methods or METHODS[:6]
    ]
    output: Path = options.output
    rows = plan_all(cases, options.gpus, output.with_suffix(".json"), options.devices)
    output.with_suffix(".md").write_text(collectives_markdown(rows, command))


def _held(options: argparse.Namespace, command: str) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    from collab_jax.benchmark.peak_memory import at_peak, by_part, held_markdown, read_values
    from collab_jax.benchmark.plan import METHODS, check_compiler, economical_cases, plan
    from collab_jax.benchmark.report import name_of
    from collab_jax.benchmark.workload import Case

    check_compiler()
    overrides = {} if options.width == 1.0 else {"model.width": options.width}
    size = options.image_size
    case = Case(options.model, "baseline", options.batch_size, size, overrides=overrides)
    cases = [replace(case, method=method) for method in options.methods or METHODS[:6]]
    cases += [] if options.methods else economical_cases(case)
    rows = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            row = plan(case, options.gpus[0], dump=Path(folder))
            held = by_part(at_peak(read_values(Path(folder))))
        rows.append({**row, "held": held, "name": name_of(row)})
        print(f"{rows[-1]['name']}: {sum(held.values()) / 2**20:.0f} MiB", flush=True)
    title = (
        f"{options.model}, {options.batch_size} x 3 x {size} x {size}, float32, "
        f"{GPUS[options.gpus[0]].name}"
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".md").write_text(held_markdown(rows, title, command))


def _step(options: argparse.Namespace, command: str) -> None:
    from collab_jax.benchmark.plan import METHODS, dropping_cases
    from collab_jax.benchmark.step_time import markdown, measure
    from collab_jax.benchmark.workload import Case

    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats}: expected at least 1")
    if options.against == "torch" and options.model != "vgg16":
        raise UserError(f"--against torch: expected --model vgg16, got {options.model}")
    cases = [
        Case(
            options.model,
            method,
            options.batch_size,
            options.image_size,
            overrides={
                "model.width": options.width,
                "model.classifier_width": options.classifier_width,
            },
        )
        for method in options.methods or METHODS
    ]
    cases += [] if options.methods else dropping_cases(cases[0])
    rows = measure(cases, repeats=options.repeats, against_torch=options.against == "torch")
    size = options.image_size
    title = f"{options.model}, width {options.width:g}, {options.batch_size} x 3 x {size} x {size}"
    if options.classifier_width != 4096:
        title += f", classifier {options.classifier_width} wide"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".md").write_text(markdown(rows, title, command))


if __name__ == "__main__":
    sys.exit(main())
