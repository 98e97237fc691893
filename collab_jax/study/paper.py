"""The paper's published numbers, and its tables and figure as cells of a study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from collab_jax.config import parse_method
from collab_jax.study.spec import Cell, Table

__all__ = ["combinations", "errors", "label_noise", "published"]

_DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet32": "ImageNet32"}
_DATA["stl10"] = "STL-10"
_MODELS = {"vgg16": "VGG-16", "resnet18": "ResNet-18"}
_PROTOCOL = (
    "The paper's numbers are the lowest test error over all epochs of one run; compare them with "
    "the same of ours, and the methods with each other by the error after the last epoch."
)


def published() -> dict[str, Any]:
    """The paper's numbers: its Tables I to III, what it states of Fig. 2, and its memory case."""
    text = resources.files("collab_jax.study").joinpath("paper_results.json").read_text()
    return json.loads(text)


def errors(title: str, datasets: Sequence[str]) -> Table:
    """Tables I and II: eight methods for each data set and network.

    Args:
      title: of the table.
      datasets: some of cifar10, cifar100, imagenet32, stl10.

    Returns:
      The table, a cell for each number that the paper prints.
    """
    paper = published()
    cells = []
    for data in datasets:
        for model, values in paper["table1_2"][data].items():
            for column, value in zip(paper["columns"], values, strict=True):
                cells.append(_cell(data, model, column, value))
    return Table(title, tuple(cells), note=_PROTOCOL)


def _cell(data: str, model: str, column: str, value: float) -> Cell:
    row = f"{_DATA[data]}, {_MODELS[model]}"
    recipe = f"{data}_{model}"
    if column != "baseline_2x":
        method = parse_method(column)
        return Cell(row, method, recipe, method, paper=value)
    if recipe == "stl10_resnet18":
        # The paper halves the batch for this one, as the recipe of its own does.
        return Cell(row, "baseline (2x)", "stl10_resnet18_2x", paper=value)
    return Cell(row, "baseline (2x)", recipe, overrides={"model.width": 2}, paper=value)


def combinations(title: str) -> Table:
    """Table III: all fifteen sums of the four terms on CIFAR-100, for both networks."""
    paper = published()["table3_cifar100"]
    cells = [
        _cell("cifar100", model, method, value)
        for model in _MODELS
        for method, value in zip(paper["methods"], paper[model], strict=True)
    ]
    note = f"{_PROTOCOL} The baseline that it is compared with stands in Table I."
    return Table(title, tuple(cells), note=note)


def label_noise(title: str) -> Table:
    """Fig. 2: VGG-16 on CIFAR-100 with 10 to 50% label noise; the paper prints no numbers of it."""
    paper = published()["fig2_label_noise_cifar100_vgg16"]
    cells = [
        Cell(
            row=f"CIFAR-100, VGG-16, noise {level:g}",
            column=parse_method(curve),
            recipe="cifar100_vgg16_label_noise",
            method=parse_method(curve),
            overrides={"data.label_noise": level},
            x=level,
        )
        for level in paper["levels"]
        for curve in paper["curves"]
    ]
    ((what, points),) = paper["stated"].items()
    note = f"The paper states of this figure: {what}, {points}."
    return Table(title, tuple(cells), x_label="label noise", note=note)
