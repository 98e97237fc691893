"""The figures of the documentation, drawn by code: `python docs/figures.py DIRECTORY`."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from sklearn.datasets import load_digits

MAIN, LOCAL, GREY, PALE = "#00695c", "#c2185b", "#616161", "#e0f2f1"
STYLE = {"svg.hashsalt": "collab_jax", "font.size": 11, "svg.fonttype": "path"}


def draw_all() -> dict[str, str]:
    """Every figure as the text of an SVG file, by file name; the same text at every call."""
    drawings: dict[str, Callable[[], Figure]] = {
        "branches.svg": hierarchical_dropout,
        "local.svg": local_back_propagation,
        "similarity.svg": similarity,
    }
    texts = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in drawings.items():
            figure, buffer = draw(), io.StringIO()
            unset = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            figure.savefig(buffer, format="svg", bbox_inches="tight", metadata=unset)
            plt.close(figure)
            texts[name] = buffer.getvalue()
    return texts


def hierarchical_dropout() -> Figure:
    """Sec. III-A: K masks in each of two layers give K^2 predictions from one trunk."""
    axes = _canvas(9.6, 4.4)
    trunk = _box(axes, 0.0, 2.0, "features\nof one pass", width=1.5)
    first = _box(axes, 2.1, 2.0, "FC, ReLU", width=1.3)
    _arrow(axes, trunk, first)
    for i, y in enumerate((3.0, 1.0)):
        mask = _box(axes, 4.0, y, f"mask {i + 1}", width=1.1, color="white")
        second = _box(axes, 5.6, y, "FC, ReLU", width=1.3)
        _arrow(axes, first, mask)
        _arrow(axes, mask, second)
        for j, offset in enumerate((0.5, -0.5)):
            inner = _box(axes, 7.5, y + offset, f"mask {i + 1}.{j + 1}", width=1.2, color="white")
            last = _box(axes, 9.3, y + offset, f"FC: $z^{{({2 * i + j + 1})}}$", width=1.2)
            _arrow(axes, second, inner)
            _arrow(axes, inner, last)
    axes.text(5.2, -0.35, "FC layers of one column are one layer: they share their weights",
              ha="center", color=GREY)  # fmt: skip
    return axes.get_figure(root=True)  # pyright: ignore[reportReturnType]


def local_back_propagation() -> Figure:
    """Sec. III-B and III-C: a local loss moves its own layer and its own head."""
    axes = _canvas(9.6, 4.2)
    names = ["input $x$", "layer 1", "layer 2", "layer 3", "classifier"]
    boxes = [
        _box(axes, 2.4 * i, 0.4, name, width=1.5, color="white" if i == 0 else PALE)
        for i, name in enumerate(names)
    ]
    for left, right in zip(boxes[:-1], boxes[1:], strict=True):
        _arrow(axes, left, right, shift=0.12)
        if left is not boxes[0]:
            _arrow(axes, right, left, shift=-0.12, color=MAIN, dashed=True)
    for number, box in enumerate(boxes[1:4], start=1):
        head = _box(axes, box[0], 2.4, f"head {number}", width=1.3, color="#fce4ec")
        axes.text(box[0] + 0.65, 3.35, f"$L_{{mid}}^{{({number})}}$", ha="center", color=LOCAL)
        _arrow(axes, box, head, shift=-0.12, vertical=True)
        _arrow(axes, head, box, shift=0.12, vertical=True, color=LOCAL, dashed=True)
    axes.text(10.35, 1.25, "$L_{out}$", ha="center", color=MAIN)
    for x, color, text, dashed in (
        (0.0, GREY, "forward", False),
        (3.0, MAIN, "gradient of $L_{out}$", True),
        (7.2, LOCAL, "local gradient: stops at its layer", True),
    ):
        axes.plot([x, x + 0.6], [-0.6, -0.6], color=color, ls="--" if dashed else "-")
        axes.text(x + 0.75, -0.6, text, va="center", color=color)
    return axes.get_figure(root=True)  # pyright: ignore[reportReturnType]


def similarity() -> Figure:
    """Sec. III-C: S(x) and S(y) of a batch of digits, and the weights of pull and push."""
    from collab_jax import losses

    digits = load_digits()
    chosen = np.concatenate([np.flatnonzero(digits.target == k)[:6] for k in range(10)])
    images = (digits.images[chosen, :, :, None] / 16).astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[digits.target[chosen]]
    figure, axes = plt.subplots(
        1, 3, figsize=(9.6, 3.2), width_ratios=(1, 1, 1.15), layout="constrained"
    )
    for panel, values, title in (
        (axes[0], losses.similarity_matrix(images), "$S(x)$: inputs, pushed off"),
        (axes[1], losses.similarity_matrix(labels), "$S(y)$: labels, pulled to"),
    ):
        panel.imshow(np.asarray(values), vmin=-1, vmax=1, cmap="RdBu_r")
        panel.set_title(title, fontsize=11)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_xlabel("60 digits by class; red: alike")
    layers = np.arange(1, 14)
    for values, label, color in (
        (np.linspace(0, 1, 13), "pull $a_i$", MAIN),
        (np.linspace(1, 0, 13), "push $b_i$", LOCAL),
    ):
        axes[2].plot(layers, values, "o-", color=color, markersize=4, label=label)
    axes[2].set_xlabel("layer $i$ of 13")
    axes[2].set_title("weights over depth", fontsize=11)
    axes[2].legend(frameon=False, loc="center right")
    axes[2].spines[["top", "right"]].set_visible(False)
    return figure


Box = tuple[float, float, float]


def _canvas(width: float, height: float) -> Axes:
    _, axes = plt.subplots(figsize=(width, height))
    axes.set_aspect("equal")
    axes.axis("off")
    return axes


def _box(axes: Axes, x: float, y: float, text: str, *, width: float, color: str = PALE) -> Box:
    style = "round,pad=0.05,rounding_size=0.12"
    box = FancyBboxPatch((x, y - 0.3), width, 0.6, boxstyle=style, fc=color, ec=GREY)
    axes.add_patch(box)
    axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=10)
    return x, y, width


def _arrow(
    axes: Axes,
    start: Box,
    end: Box,
    *,
    shift: float = 0.0,
    vertical: bool = False,
    color: str = GREY,
    dashed: bool = False,
) -> None:
    """An arrow between two boxes, moved sideways so that two of them do not cover each other."""
    if vertical:
        side = 0.38 if start[1] < end[1] else -0.38
        x = start[0] + 0.7 + shift
        points = (x, start[1] + side), (x, end[1] - side)
    elif start[0] < end[0]:
        points = (start[0] + start[2] + 0.06, start[1] + shift), (end[0] - 0.08, end[1] + shift)
    else:
        points = (start[0] - 0.06, start[1] + shift), (end[0] + end[2] + 0.08, end[1] + shift)
    style = {"arrowstyle": "-|>", "mutation_scale": 11, "color": color}
    axes.add_patch(FancyArrowPatch(*points, ls="--" if dashed else "-", **style))
    axes.autoscale_view()


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in draw_all().items():
        (directory / name).write_text(text)
