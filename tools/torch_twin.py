"""The first steps of VGG-16 and ResNet-18 here and in PyTorch, on the same images.

    python tools/torch_twin.py --data cifar10.npz --out results/torch_twin

First from the same weights without dropout, step by step: the networks, the loss, batch norm's form
and SGD's are then one computation, and the curves part by rounding alone. Then from weights of each
framework's own, with dropout, over several seeds: what the initial values do. `torch he` has our
He-normal convolutions and PyTorch's fully connected layers, `ours` is the recipe as shipped, and
`torch lecun` has Flax's default in the fully connected layers. Nothing is augmented. Writes
OUT.jsonl, which a second run goes on with, and OUT.md. Needs PyTorch.
"""

import argparse
import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from first_steps import every

from collab_jax import config as config_lib
from collab_jax.data import DataInfo
from collab_jax.models import from_torch
from collab_jax.training.build import create_experiment
from collab_jax.training.state import Batch, create_train_state
from collab_jax.training.step import train_step

nn: Any = torch.nn
BATCH, CLASSES, HIDDEN = 128, 10, 4096
KINDS = ("same weights", "ours", "torch", "torch he", "torch lecun")


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *convolution(inputs, filters, 3, stride),
            nn.ReLU(),
            *convolution(filters, filters, 3, 1),
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != filters:
            self.shortcut = nn.Sequential(*convolution(inputs, filters, 1, stride))

    def forward(self, x: Any) -> Any:
        return torch.relu(self.main(x) + self.shortcut(x))


def convolution(inputs: int, filters: int, size: int, stride: int) -> tuple[Any, Any]:
    layer = nn.Conv2d(inputs, filters, size, stride, padding=size // 2, bias=False)
    return layer, nn.BatchNorm2d(filters)


def network(name: str, width: float, dropout: float) -> Any:
    """The network in PyTorch's own layers, with PyTorch's initial values."""
    layers: list[Any] = []
    channels = 3
    if name == "vgg16":
        for group in ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3):
            for base in group:
                filters = round(base * width)
                layers += [*convolution(channels, filters, 3, 1), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2))
    else:
        layers += [*convolution(3, round(64 * width), 3, 1), nn.ReLU()]
        channels = round(64 * width)
        for stage, base in enumerate((64, 128, 256, 512)):
            for block in range(2):
                stride = 2 if stage and not block else 1
                layers.append(Block(channels, round(base * width), stride))
                channels = round(base * width)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for _ in range(2):
        layers += [nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Dropout(dropout)]
        channels = HIDDEN
    return nn.Sequential(*layers, nn.Linear(channels, CLASSES))


def draw_anew(model: Any, kind: str) -> None:
    """Gives a network initial values that are not PyTorch's."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and kind == "torch lecun":
            deviation = module.in_features**-0.5
            nn.init.trunc_normal_(
                module.weight, std=deviation / 0.8796, a=-2 * deviation, b=2 * deviation
            )
            nn.init.zeros_(module.bias)


class Data:
    """Batches of an .npz file's images, in an order of the seed that is drawn anew every epoch."""

    def __init__(self, path: str) -> None:
        with np.load(path) as arrays:
            self.images = arrays["x_train"]
            self.labels = arrays["y_train"].astype(np.int32)
        self.mean = (self.images / np.float32(255)).mean((0, 1, 2))
        self.std = self.images[:5000].astype(np.float32).std((0, 1, 2)) / 255

    def batches(self, steps: int, seed: int) -> Any:
        generator, whole = np.random.default_rng(seed), len(self.labels) // BATCH * BATCH
        epochs = (
            generator.permutation(len(self.labels))[:whole].reshape(-1, BATCH)
            for _ in itertools.count()
        )
        for indices in itertools.islice(itertools.chain.from_iterable(epochs), steps):
            yield self.images[indices], self.labels[indices]


def run_torch(model: Any, data: Data, steps: int, seed: int) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    losses = []
    for images, labels in data.batches(steps, seed):
        inputs = (images.astype(np.float32) / 255 - data.mean) / data.std
        optimizer.zero_grad()
        logits = model(torch.from_numpy(np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels.astype(np.int64)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def run_ours(
    name: str, width: float, dropout: float, data: Data, steps: int, seed: int, weights: Any = None
) -> tuple[list[float], Any]:
    """Losses by the train step of a run, and the running statistics at the end."""
    changes = {"model.name": name, "model.width": width, "model.dropout": dropout}
    changes |= {"data.crop": False, "data.flip": False, "batch_size": BATCH}
    info = DataInfo(
        CLASSES,
        tuple(map(str, range(CLASSES))),
        (32, 32, 3),
        tuple(data.mean.tolist()),
        tuple(data.std.tolist()),
    )
    config = config_lib.parse(config_lib.recipe("baseline", changes))
    made = create_experiment(config, info, steps)
    state = create_train_state(made.model, made.objective, made.optimizer, (32, 32, 3), seed)
    if weights is not None:
        state = dataclasses.replace(
            state, params=weights["params"], batch_stats=weights["batch_stats"]
        )
    step = jax.jit(lambda state, batch: train_step(made.settings, state, batch), donate_argnums=0)
    losses, before = [], 0.0
    for images, labels in data.batches(steps, seed):
        batch = Batch(images=images, labels=labels, indices=np.arange(BATCH, dtype=np.int32))
        state, report = step(state, batch)
        losses.append(float(report["loss"]) - before)
        before = float(report["loss"])
    return losses, state.batch_stats


def measure(kind: str, name: str, width: float, data: Data, steps: int, seed: int) -> Any:
    """One line: the losses of one curve, or of both where they start from the same weights."""
    torch.manual_seed(seed)
    if kind == "ours":
        return {"losses": run_ours(name, width, 0.5, data, steps, seed)[0]}
    model = network(name, width, 0.0 if kind == "same weights" else 0.5).train()
    if kind in ("torch he", "torch lecun"):
        draw_anew(model, kind)
    if kind != "same weights":
        return {"losses": run_torch(model, data, steps, seed)}
    _, weights = from_torch(name, {k: v.numpy().copy() for k, v in model.state_dict().items()})
    losses = run_torch(model, data, steps, seed)
    ours, stats = run_ours(name, width, 0.0, data, steps, seed, weights)
    _, after = from_torch(name, {k: v.numpy().copy() for k, v in model.state_dict().items()})
    first = jax.tree.leaves(stats)[0], jax.tree.leaves(after["batch_stats"])[0]
    return {"losses": ours, "torch": losses, "first running mean": [x.tolist()[0] for x in first]}


def table(lines: list[dict[str, Any]], steps: int) -> str:
    """Markdown: loss by loss from the same weights, then curves over seeds."""
    rows = ["From the same weights, no dropout: loss, and its relative difference.", ""]
    shown = [n for n in (1, 2, 3, 5, 10, 20, 50, steps) if n <= steps]
    rows += ["| network | | " + " | ".join(f"step {n}" for n in shown) + " |"]
    rows += ["|---|---|" + "---:|" * len(shown)]
    for line in lines:
        if line["kind"] == "same weights":
            for who, key in (("PyTorch", "torch"), ("ours", "losses")):
                values = " | ".join(f"{line[key][n - 1]:.5f}" for n in shown)
                rows.append(f"| {line['name']} at width {line['width']:g} | {who} | {values} |")
            apart = [abs(line["losses"][n - 1] / line["torch"][n - 1] - 1) for n in shown]
            rows.append("| | difference | " + " | ".join(f"{a:.0e}" for a in apart) + " |")
    heads = [f"{n + 1}-{n + 20}" for n in range(0, steps, 20)]
    rows += ["", "From own weights, dropout 0.5: mean loss over 20 steps, mean over seeds ± their"]
    rows += ["standard deviation.", "", "| network | values | seeds | " + " | ".join(heads) + " |"]
    rows += ["|---|---|---:|" + "---:|" * len(heads)]
    for key in dict.fromkeys((x["name"], x["width"], x["kind"]) for x in lines):
        if key[2] != "same weights":
            own = [x for x in lines if (x["name"], x["width"], x["kind"]) == key]
            means = np.array([every(x["losses"], 20) for x in own])
            spread = means.std(0, ddof=1) if len(own) > 1 else np.zeros(len(heads))
            cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(means.mean(0), spread, strict=True)]
            rows.append(
                f"| {key[0]} at width {key[1]:g} | {key[2]} | {len(own)} | {' | '.join(cells)} |"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help=".npz of 32 x 32 colour images")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--networks", default="vgg16=0.25,resnet18=0.125", help="NAME=WIDTH,...")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("TORCH_THREADS", str(os.cpu_count() or 1))))
    networks = [(n, float(w)) for n, _, w in (x.partition("=") for x in args.networks.split(","))]
    cells = [
        (kind, *one, seed)
        for seed in range(args.seeds)
        for one in networks
        for kind in args.kinds
        if kind != "same weights" or seed == 0
    ]
    data = Data(args.data)
    path = args.out.with_suffix(".jsonl")
    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    for kind, name, width, seed in cells:
        key = {"kind": kind, "name": name, "width": width, "seed": seed, "steps": args.steps}
        if not any(line | key == line for line in lines):
            lines.append(key | measure(kind, name, width, data, args.steps, seed))
            with path.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
        args.out.with_suffix(".md").write_text(table(lines, args.steps) + "\n")
        print(kind, name, seed, flush=True)


if __name__ == "__main__":
    sys.exit(main())
