"""Where the time of the baseline's train step goes on a CPU, part by part, beside PyTorch's.

Command, on an idle core:
    OMP_NUM_THREADS=1 taskset -c 0 python tools/step_parts.py --width 0.5 --repeats 15 \\
        --output results/step_parts.md

Each part is a program of its own that runs all of a kind that the step has, on random numbers: the
convolutions of all layers, their gradients by input and by weight, batch norm with ReLU, max
pooling and the classifier (forward and backward), and the optimizer's update. The parts and the
whole step are timed in turn. In a step XLA fuses what the parts do alone, so that their sum is not
the step's time.
PyTorch's columns (extra `bench`) are left out with --no-torch.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from collab_jax.benchmark.step_time import prepare, time_in_turn  # noqa: E402
from collab_jax.benchmark.workload import Case  # noqa: E402
from collab_jax.models import blocks, vgg  # noqa: E402
from collab_jax.models.classifier import HierarchicalDropoutClassifier  # noqa: E402
from collab_jax.models.normalization import batch_norm  # noqa: E402

FORWARD, BY_INPUT, BY_WEIGHT = (
    "convolutions, forward",
    "convolutions, by input",
    "convolutions, by weight",
)
NORM, POOLING, CLASSIFIER = "batch norm and ReLU", "max pooling", "classifier with dropout"
OPTIMIZER, STEP = "optimizer", "whole step"


@dataclass
class Shapes:
    """What the layers of a network see: shapes of (input, kernel), and of what is pooled."""

    convolutions: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    pooled: list[tuple[int, ...]] = field(default_factory=list)
    outputs: list[tuple[int, ...]] = field(default_factory=list)

    def flops(self, first: int = 0) -> int:
        """Of all convolutions from a number on, forward."""
        pairs = list(zip(self.outputs, self.convolutions, strict=True))[first:]
        return sum(2 * math.prod(y[:3]) * math.prod(kernel) for y, (_, kernel) in pairs)


def shapes_of(case: Case) -> Shapes:
    """The shapes in a VGG-16's forward pass in training."""
    found, convolution, pool = Shapes(), blocks.conv_general_dilated, vgg.max_pool

    def convolve(x: Any, kernel: Any, *args: Any, **options: Any) -> Any:
        y = convolution(x, kernel, *args, **options)
        found.convolutions.append((x.shape, kernel.shape))
        found.outputs.append(y.shape)
        return y

    def pooling(x: Any, window: Any) -> Any:
        found.pooled.append(x.shape)
        return pool(x, window)

    model = case.experiment().model
    images = jax.ShapeDtypeStruct((case.batch_size, *case.image_shape), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)

    def forward(variables: Any, images: Any) -> Any:
        options = {"train": True, "rngs": {"dropout": jax.random.key(0)}}
        return model.apply(variables, images, mutable=["batch_stats"], **options)

    with (
        mock.patch.object(blocks, "conv_general_dilated", convolve),
        mock.patch.object(vgg, "max_pool", pooling),
    ):
        jax.eval_shape(forward, variables, images)
    return found


def _random(shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]


def _convolve(x: Any, kernel: Any) -> Any:
    numbers = ("NHWC", "HWIO", "NHWC")
    pads = ((1, 1), (1, 1))
    return blocks.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=numbers)


def _normed(variables: Any, x: Any) -> Any:
    norm: Any = batch_norm(train=True, groups=1, dtype=jnp.float32, name="norm")
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    return jax.nn.relu(y), updated


def _pool(x: Any) -> Any:
    return vgg.max_pool(x, (2, 2)), None


def _both(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """What a function gives, and the gradient by all of its arguments."""

    def run(arguments: Any, cotangent: Any) -> Any:
        y, backward, more = jax.vjp(function, *arguments, has_aux=True)
        return y, more, backward(cotangent)

    return run


def _gradient(argument: int) -> Callable[[Any, Any, Any], Any]:
    def run(x: Any, kernel: Any, cotangent: Any) -> Any:
        # The convolution is linear in either argument: its own result is not computed.
        return jax.vjp(_convolve, x, kernel)[1](cotangent)[argument]

    return run


def ours(shapes: Shapes, case: Case) -> dict[str, Callable[[], None]]:
    """A function for each part, which waits for its result."""
    inputs, kernels = (_random(of) for of in zip(*shapes.convolutions, strict=True))
    outputs, pooled = _random(shapes.outputs), _random(shapes.pooled)
    made = case.experiment()
    state = case.init(made)
    trained = (state.params, state.heads)

    gradients = jax.tree.map(jnp.ones_like, trained)
    held = [(trained, state.opt_state)]

    @partial(jax.jit, donate_argnums=0)
    def update(held: Any, gradients: Any) -> Any:
        params, optimizer_state = held
        updates, optimizer_state = made.optimizer.update(gradients, optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state

    def optimize() -> None:
        held[0] = jax.block_until_ready(update(held[0], gradients))

    classifier: Any = HierarchicalDropoutClassifier(
        case.num_classes, width=case.overrides["model.classifier_width"]
    )
    features = _random([(case.batch_size, shapes.outputs[-1][-1])])[0]
    classifier_params = jax.tree.map(jnp.copy, state.params["classifier"])

    def classify(arguments: Any, key: Any, cotangent: Any) -> Any:
        def apply(params: Any, x: Any) -> Any:
            return classifier.apply({"params": params}, x, train=True, rngs={"dropout": key}), None

        return _both(apply)(arguments, cotangent)

    logits = _random([(1, case.batch_size, case.num_classes)])[0]
    norms = [
        {
            "params": {"scale": jnp.ones(x.shape[-1]), "bias": jnp.zeros(x.shape[-1])},
            "batch_stats": {"mean": jnp.zeros(x.shape[-1]), "var": jnp.ones(x.shape[-1])},
        }
        for x in outputs
    ]
    halves = _random([(batch, h // 2, w // 2, c) for batch, h, w, c in shapes.pooled])
    convolutions = (inputs, kernels, outputs)
    parts: dict[str, tuple[Callable[..., Any], Sequence[Any]]] = {
        FORWARD: (_each(lambda x, kernel, _: _convolve(x, kernel)), convolutions),
        BY_INPUT: (_each(_gradient(0)), [of[1:] for of in convolutions]),
        BY_WEIGHT: (_each(_gradient(1)), convolutions),
        NORM: (_each(_both(_normed)), (list(zip(norms, outputs, strict=True)), outputs)),
        POOLING: (_each(_both(_pool)), ([(x,) for x in pooled], halves)),
        CLASSIFIER: (classify, ((classifier_params, features), jax.random.key(0), logits)),
    }
    step, _ = prepare(case)
    compiled = {
        name: _waiting(jax.jit(function), jax.device_put(arguments))
        for name, (function, arguments) in parts.items()
    }
    return {**compiled, OPTIMIZER: optimize, STEP: step}


def of_torch(shapes: Shapes, case: Case) -> dict[str, Callable[[], None]]:
    """The same parts in PyTorch, whose maps are (B, C, H, W)."""
    import torch  # pyright: ignore[reportMissingImports]

    from collab_jax.benchmark import torch_vgg

    def maps(of: Sequence[tuple[int, ...]]) -> list[Any]:
        return [torch.from_numpy(np.array(x)).permute(0, 3, 1, 2).contiguous() for x in _random(of)]

    options = {
        "image_size": case.image_size,
        "num_classes": case.num_classes,
        "width": case.overrides["model.width"],
        "classifier_width": case.overrides["model.classifier_width"],
    }
    inputs = maps([x for x, _ in shapes.convolutions])
    outputs, pooled = maps(shapes.outputs), maps(shapes.pooled)
    kernels = [
        torch.from_numpy(np.array(x)).permute(3, 2, 0, 1).contiguous()
        for x in _random([kernel for _, kernel in shapes.convolutions])
    ]
    norms = [
        torch.nn.Sequential(torch.nn.BatchNorm2d(x.shape[1]), torch.nn.ReLU()) for x in outputs
    ]
    model = torch_vgg.vgg16(**options)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    channels = shapes.outputs[-1][-1]
    _, _, *layers = torch_vgg.classifier(channels, options["classifier_width"], case.num_classes)
    classifier = torch.nn.Sequential(*layers)
    features = torch.randn(case.batch_size, channels, requires_grad=True)

    def classify() -> None:
        y = classifier(features)
        torch.autograd.grad(y, (features, *classifier.parameters()), y.detach())

    def backward(mask: tuple[bool, bool, bool], first: int) -> Callable[[], None]:
        def run() -> None:
            for x, kernel, y in list(zip(inputs, kernels, outputs, strict=True))[first:]:
                torch.ops.aten.convolution_backward(
                    y, x, kernel, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, mask
                )

        return run

    def both(functions: Sequence[Any], values: Sequence[Any]) -> Callable[[], None]:
        leaves = [x.clone().requires_grad_() for x in values]

        def run() -> None:
            for function, x in zip(functions, leaves, strict=True):
                y = function(x)
                torch.autograd.grad(y, (x, *function.parameters()), y.detach())

        return run

    def forward() -> None:
        with torch.no_grad():
            for x, kernel in zip(inputs, kernels, strict=True):
                torch.nn.functional.conv2d(x, kernel, padding=1)

    return {
        FORWARD: forward,
        BY_INPUT: backward((True, False, False), 1),
        BY_WEIGHT: backward((False, True, False), 0),
        NORM: both(norms, outputs),
        POOLING: both([torch.nn.MaxPool2d(2)] * len(pooled), pooled),
        CLASSIFIER: classify,
        OPTIMIZER: optimizer.step,
        STEP: torch_vgg.torch_step(batch_size=case.batch_size, **options),
    }


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *lists: [function(*arguments) for arguments in zip(*lists, strict=True)]


def _waiting(function: Callable[..., Any], arguments: Sequence[Any]) -> Callable[[], None]:
    return lambda: jax.block_until_ready(function(*arguments))


def rows(medians: dict[str, dict[str, float]], shapes: Shapes) -> list[str]:
    """A table's rows of median seconds, by part and side."""
    sides = list(medians)
    lines = []
    for part, seconds in medians[sides[0]].items():
        others = [medians[side][part] for side in sides[1:]]
        cells = [f"{1e3 * seconds:.1f}", f"{100 * seconds / medians[sides[0]][STEP]:.0f}"]
        for other in others:
            cells += [f"{1e3 * other:.1f}", f"{seconds / other:.2f}"]
        is_convolution = part in (FORWARD, BY_INPUT, BY_WEIGHT)
        flops = shapes.flops(first=int(part == BY_INPUT))
        cells += [
            f"{flops / value / 1e9:.1f}" if is_convolution else "" for value in (seconds, *others)
        ]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--classifier-width", type=int, default=4096)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: expected at least 1")
    if not options.no_torch and find_spec("torch") is None:
        parser.error("PyTorch is missing; expected the extra `bench`, or --no-torch")
    overrides = {
        "model.width": options.width,
        "model.classifier_width": options.classifier_width,
    }
    case = Case(batch_size=options.batch_size, image_size=options.image_size, overrides=overrides)
    shapes = shapes_of(case)
    sides = {"ours": ours(shapes, case)}
    versions = [f"jax {jax.__version__}"]
    if not options.no_torch:
        sides["PyTorch"] = of_torch(shapes, case)
        import torch  # pyright: ignore[reportMissingImports]

        versions.append(f"PyTorch {version('torch')} with {torch.get_num_threads()} thread(s)")
    timed = time_in_turn(
        {f"{side}: {part}": run for side, parts in sides.items() for part, run in parts.items()},
        options.repeats,
    )
    medians = {
        side: {part: statistics.median(timed[f"{side}: {part}"]) for part in parts}
        for side, parts in sides.items()
    }
    about = (
        f"vgg16, width {options.width:g}, classifier {options.classifier_width} wide, "
        f"{options.batch_size} images of {options.image_size} pixels, "
        f"{len(os.sched_getaffinity(0))} core(s), {' and '.join(versions)}; medians of "
        f"{options.repeats} in turn."
    )
    others = [side for side in sides if side != "ours"]
    head = ["part", "ours, ms", "% of the step"]
    for side in others:
        head += [f"{side}, ms", f"ours / {side}"]
    head += [f"{side}, GFLOP/s" for side in sides]
    lines = [
        "# Where a step's time goes on a CPU",
        "",
        about,
        "",
        "Command, with OMP_NUM_THREADS and the cores as told above: "
        f"`python tools/step_parts.py {shlex.join(argv or sys.argv[1:])}`",
        "",
        f"| {' | '.join(head)} |",
        "|---|" + "---:|" * (len(head) - 1),
        *rows(medians, shapes),
    ]
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
