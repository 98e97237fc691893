"""The shipped recipes hold the paper's settings, and their headers say what is true."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from collab_jax import cli
from collab_jax import config as config_lib
from collab_jax.config import recipes

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PATHS = sorted(CONFIGS.glob("*.py"))
METHODS = ["baseline", "out", "mid", "pull_push", "kernel", "out+mid+pull_push+kernel"]

# data: TFDS name, training images, epochs, batch, learning rate, decays, top-5 (Sec. IV-A).
PAPER = {
    "cifar10": ("cifar10", 50_000, 200, 128, 0.1, (0.3, 0.6, 0.8), False),
    "cifar100": ("cifar100", 50_000, 200, 128, 0.1, (0.3, 0.6, 0.8), False),
    "imagenet32": ("imagenet_resized/32x32", 1_281_167, 40, 256, 0.1, (0.3, 0.6, 0.9), True),
    "stl10": ("stl10", 5_000, 200, 128, 0.05, (0.3, 0.6, 0.9), False),
}
OURS = {
    "digits": ("digits", 1_437),
    "fashion_mnist": ("fashion_mnist", 60_000),
    "small_fashion_mnist": ("fashion_mnist", 1_000),
    "small_cifar10": ("cifar10", 2_000),
}

# Tables I and II, in %: baseline, baseline 2x, out, mid, pull_push, kernel, out+mid+pull_push,
# mid+pull_push+kernel.
ERRORS = {
    "cifar10_vgg16": "6.32 5.48 5.90 5.44 5.51 6.04 5.34 5.42",
    "cifar10_resnet18": "4.84 4.53 4.55 4.47 4.45 4.69 4.42 4.31",
    "cifar100_vgg16": "26.94 25.39 25.90 24.93 26.03 25.64 24.18 25.13",
    "cifar100_resnet18": "22.98 21.58 22.02 21.93 22.27 22.55 22.03 20.93",
    "imagenet32_vgg16": "33.08 30.06 30.00 29.09 29.51 31.52 28.41 28.75",
    "imagenet32_resnet18": "24.10 22.38 22.27 22.01 23.12 22.95 22.05 21.64",
    "stl10_vgg16": "30.25 39.70 26.35 28.87 25.92 29.53 24.80 25.47",
    "stl10_resnet18": "33.31 32.05 27.89 30.59 24.80 30.35 24.66 24.03",
}


def header(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def commands(path: Path) -> list[list[str]]:
    lines = header(path).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip().startswith("python ")]


def test_every_recipe_of_the_paper_and_ours_is_there():
    models = ("vgg16", "resnet18")
    expected = {f"{data}_{model}" for data in PAPER for model in models}
    expected |= {f"fashion_mnist_{model}" for model in models} | {"digits_vgg16"}
    expected |= {"small_fashion_mnist_vgg16", "small_cifar10_vgg16"}
    expected |= {"cifar10_vgg16_label_noise", "cifar100_vgg16_label_noise", "stl10_resnet18_2x"}
    assert {path.stem for path in PATHS} == expected


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_recipes_load_and_validate_with_every_method(path):
    for method in (*METHODS, "tree", "multi_instance"):
        config = recipes.load(str(path), method)
        assert (config.method, config.name, config.seed) == (method, path.stem, 0)
    assert recipes.load(str(path)).method == "baseline"


@pytest.mark.parametrize("data", PAPER)
@pytest.mark.parametrize("model", ["vgg16", "resnet18"])
def test_recipes_hold_the_papers_settings(data, model):
    name, _, epochs, batch, rate, decays, top5 = PAPER[data]
    config = recipes.load(f"{data}_{model}")
    assert (config.data.name, config.model.name) == (name, model)
    assert (config.epochs, config.batch_size) == (epochs, batch)
    assert (config.learning_rate, config.decay_epochs, config.decay_factor) == (rate, decays, 0.2)
    assert (config.weight_decay, config.momentum, config.nesterov) == (5e-4, 0.9, False)
    assert (config.top5, config.warmup_epochs, config.steps) == (top5, 0, 0)
    assert (config.model.width, config.model.classifier_width) == (1, 4096)
    assert (config.model.dropout, config.model.dtype) == (0.5, "float32")
    assert (config.data.crop, config.data.flip, config.data.cutout) == (True, True, 0)
    assert (config.data.label_noise, config.data.validation, config.data.image_size) == (0, 0, 0)
    out, mid, pull_push, kernel = config.out, config.mid, config.pull_push, config.kernel
    assert (out.temperature, out.alpha, out.masks_per_layer) == (2, 0.5, 2)
    assert (mid.temperature, mid.alpha, mid.beta) == (2, 0.05, 0.05)
    assert (out.weight, mid.weight, pull_push.weight, kernel.weight) == (1, 1, 1.28, 0.001)
    assert (pull_push.projection_width, pull_push.projection_kernel) == (32, 3)
    assert (mid.head_width, mid.head_pool, kernel.stages) == (64, 4, 2)
    assert (out.scale_by_t2, mid.scale_by_t2, mid.output_view) == (False, False, False)
    assert out.stop_gradient and mid.stop_gradient


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_label_noise_changes_the_noise_alone(data):
    plain, noisy = recipes.load(f"{data}_vgg16"), recipes.load(f"{data}_vgg16_label_noise")
    changes = {key: new for key, _, new in config_lib.differences(plain, noisy)}
    assert changes == {"name": f"{data}_vgg16_label_noise", "data.label_noise": 0.5}


def test_stl10_resnet18_of_twice_the_width_halves_the_batch_and_nothing_else():
    plain, wide = recipes.load("stl10_resnet18"), recipes.load("stl10_resnet18_2x")
    changes = {key: new for key, _, new in config_lib.differences(plain, wide)}
    assert changes == {"name": "stl10_resnet18_2x", "model.width": 2, "batch_size": 64}


def test_our_own_recipes():
    digits = recipes.load("digits_vgg16")
    assert (digits.data.name, digits.data.flip, digits.data.crop) == ("digits", False, True)
    assert digits.batch_size == 128
    for model in ("vgg16", "resnet18"):
        config = recipes.load(f"fashion_mnist_{model}")
        assert (config.data.name, config.model.name) == ("fashion_mnist", model)
        assert config.data.flip and config.data.crop
    for name in ("digits_vgg16", "fashion_mnist_vgg16", "fashion_mnist_resnet18"):
        config = recipes.load(name)
        assert config.decay_epochs and max(config.decay_epochs) < 1


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_headers_hold_commands_that_run_this_recipe(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = commands(path)
    assert found
    for command in found:
        assert command[:2] == ["python", "launch.py"]
        parsed = cli.parse(command[2:])
        assert parsed.config.name == path.stem
        assert parsed.warnings == () or parsed.config.method == "baseline"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_headers_state_the_recipes_cost(path):
    text = header(path)
    data = next(name for name in (*PAPER, *OURS) if path.stem.startswith(name + "_"))
    images = {**PAPER, **OURS}[data][1]
    config = recipes.load(str(path))
    steps = images // config.batch_size * config.epochs
    cost = f"Cost: {config.epochs} epochs of {images:,} images"
    assert cost in text and f" {steps:,} steps of {config.batch_size};" in text
    assert text.index("Paper: ") < text.index("Command") < text.index("Cost: ")
    assert "\nExpected" in text


@pytest.mark.parametrize("name", ERRORS)
def test_headers_state_the_papers_errors_as_the_papers(name):
    text = header(CONFIGS / f"{name}.py")
    table = re.findall(r"^    ([a-z_+ 2]+?) +(\d+\.\d\d)$", text, re.MULTILINE)
    assert [error for _, error in table] == ERRORS[name].split()
    labels = [label for label, _ in table]
    assert labels[:2] == ["baseline", "baseline 2x"]
    assert all(config_lib.parse_method(label) == label for label in labels[2:])
    assert "the paper's (one run, lowest over all epochs)" in text
