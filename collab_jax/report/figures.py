"""The report's figures: legible in black and white and to colour-blind readers."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from collab_jax.report.collect import PROTOCOLS, CellData, TableData
from collab_jax.report.comparisons import differences as table_differences
from collab_jax.report.statistics import summarise

__all__ = ["curves_over_x", "differences", "learning_curves", "pictures", "separations", "terms"]

# Okabe and Ito's colours, dark ones first; marker and line style tell the lines apart without them.
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vPX<>*hd"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))
_NOT_TERMS = {"step", "epoch", "split", "loss", "top1_error", "top5_error", "skipped_steps"}
_NOT_TERMS |= {"learning_rate", "images_per_second", "wait_fraction"}
_NOT_TERMS |= {"logit_scale", "dead_units_fc1", "dead_units_fc2"}


def _style(number: int) -> dict[str, Any]:
    # Seven colours, six lines and twelve markers: the combinations repeat after 84.
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _LINES[number % len(_LINES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4.5,
        "linewidth": 1.3,
    }


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("agg")
    # The same figures give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "collab_jax", "font.size": 9})
    import matplotlib.pyplot as plt

    return plt


def _saved(figure: Any, kind: str = "svg") -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=metadata, dpi=130)
    _pyplot().close(figure)
    return buffer.getvalue()


def _legend_below(figure: Any, axes: Any, entries: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(4, entries),
            frameon=False,
            handlelength=3.5,
        )


def differences(table: TableData, protocol: str) -> bytes | None:
    """Paired differences to baseline with their 95% intervals, a panel for each row.

    Args:
      table: the table.
      protocol: a key of `PROTOCOLS`.

    Returns:
      An SVG, None where there is no difference yet.
    """
    panels = []
    compared = list(zip(table.cells, table_differences(table, protocol), strict=True))
    for row in table.rows:
        points = [
            (cell.column, found)
            for cell, found in compared
            if cell.row == row and found is not None and found.mean is not None
        ]
        if points:
            panels.append((row, points))
    if not panels:
        return None
    plt = _pyplot()
    heights = [len(points) for _, points in panels]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(7, 0.7 + sum(0.28 * n + 0.55 for n in heights)),
        height_ratios=heights,
        squeeze=False,
        sharex=True,
        layout="constrained",
    )
    for (row, points), axis in zip(panels, axes[:, 0], strict=True):
        for place, (_, found) in enumerate(points):
            clear = found.verdict in ("better", "worse")
            if found.low is not None:
                axis.plot([found.low, found.high], [place, place], color="black", linewidth=1.6)
            axis.plot(
                found.mean,
                place,
                marker="o",
                color="black",
                markerfacecolor="black" if clear else "white",
                markersize=6,
            )
        axis.axvline(0.0, color="black", linewidth=0.8, linestyle=":")
        axis.set_yticks(range(len(points)), [name for name, _ in points])
        axis.set_ylim(len(points) - 0.5, -0.5)
        axis.set_title(row, fontsize=9, loc="left")
    axes[-1, 0].set_xlabel(
        f"error minus {table.baseline}'s, in points ({PROTOCOLS[protocol][1]}); left is better"
    )
    return _saved(figure)


def curves_over_x(table: TableData, protocol: str) -> bytes | None:
    """Test error over the cells' `x`, a line for each column: Fig. 2.

    Returns:
      An SVG, None where no run is done.
    """
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    drawn = 0
    for number, column in enumerate(table.columns):
        cells = sorted(
            (c for c in table.cells if c.column == column and c.x is not None),
            key=lambda cell: cell.x or 0.0,
        )
        points = [(c.x, summarise(list(c.errors(protocol).values()))) for c in cells]
        points = [(x, found) for x, found in points if found.mean is not None]
        if not points:
            continue
        axis.errorbar(
            [x for x, _ in points],
            [found.mean for _, found in points],
            yerr=[found.sd or 0.0 for _, found in points],
            label=column,
            capsize=3,
            **_style(number),
        )
        drawn += 1
    if not drawn:
        plt.close(figure)
        return None
    axis.set_xlabel(table.x_label)
    axis.set_ylabel(f"test error in % ({PROTOCOLS[protocol][1]})")
    axis.grid(alpha=0.3)
    _legend_below(figure, axis, drawn)
    return _saved(figure)


def _panels(count: int, width: float = 3.6) -> tuple[Any, Any]:
    plt = _pyplot()
    columns = min(2, count)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns + 0.4, 2.6 * rows + 0.7),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat


def _lines(
    axis: Any, cells: Sequence[CellData], name: str, split: str, *, second_half: bool = False
) -> int:
    curves = [cell.curve(name, split) for cell in cells]
    begin = max((epochs[-1] for epochs, _, _ in curves if len(epochs)), default=0) / 2
    drawn = 0
    for number, (cell, (epochs, means, spreads)) in enumerate(zip(cells, curves, strict=True)):
        if second_half:
            shown = epochs >= begin
            epochs, means, spreads = epochs[shown], means[shown], spreads[shown]
        if not len(epochs):
            continue
        style = _style(number)
        axis.plot(epochs, means, label=cell.column, markevery=max(1, len(epochs) // 8), **style)
        if not second_half:
            low, high = means - spreads, means + spreads
            axis.fill_between(epochs, low, high, color=style["color"], alpha=0.12, linewidth=0)
        drawn += 1
    axis.grid(alpha=0.3)
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return drawn


def learning_curves(table: TableData, row: str) -> bytes | None:
    """Test and training error over epochs, and once more over the second half of them.

    Means over seeds; above, the standard deviation as a band.
    """
    cells = [cell for cell in table.cells if cell.row == row]
    name = "top5_error" if any(cell.top5 for cell in cells) else "top1_error"
    figure, axes = _panels(4)
    drawn = 0
    for number, axis in enumerate(axes):
        split = ("test", "train")[number % 2]
        drawn = max(drawn, _lines(axis, cells, name, split, second_half=number >= 2))
        axis.set_ylabel(f"{split} error in %")
    if not drawn:
        _pyplot().close(figure)
        return None
    _legend_below(figure, axes[0], drawn)
    return _saved(figure)


def terms(table: TableData, row: str) -> bytes | None:
    """Every term's unweighted value over training, a panel for each term."""
    cells = [cell for cell in table.cells if cell.row == row]
    names: dict[str, None] = {}
    for cell in cells:
        for run in cell.runs:
            for line in run.metrics:
                if line["split"] == "train":
                    names.update(dict.fromkeys(key for key in line if key not in _NOT_TERMS))
    if not names:
        return None
    figure, axes = _panels(len(names))
    labels: dict[str, Any] = {}
    for axis, name in zip(axes, names, strict=False):
        _lines(axis, cells, name, "train")
        axis.set_title(name, fontsize=9, loc="left")
        handles, texts = axis.get_legend_handles_labels()
        labels.update(zip(texts, handles, strict=True))
    figure.legend(
        list(labels.values()),
        list(labels),
        loc="outside lower center",
        ncols=min(4, len(labels)),
        frameon=False,
        handlelength=3.5,
    )
    return _saved(figure)


def separations(cells: Sequence[CellData]) -> bytes | None:
    """How far each layer's similarities are from the labels' and the inputs', after training."""
    found = [(c.column, _diagnosed(c)) for c in cells]
    found = [(column, values) for column, values in found if values is not None]
    if not found:
        return None
    figure, axes = _panels(2)
    for axis, name in zip(axes, ("labels", "inputs"), strict=False):
        for number, (column, values) in enumerate(found):
            target = values[f"similarity_{name}"].astype(np.float64)
            layers = values["similarity_after"].astype(np.float64)
            distance = np.linalg.norm(layers - target, axis=(1, 2)) / len(target)
            style = {**_style(number), "markersize": 3.5}
            axis.plot(np.arange(1, len(layers) + 1), distance, label=column, **style)
        symbol = {"labels": "S(y)", "inputs": "S(x)"}[name]
        axis.set_ylabel(f"distance of S(h_i) to {symbol}")
        axis.set_xlabel("layer i")
        axis.grid(alpha=0.3)
    _legend_below(figure, axes[0], len(found))
    return _saved(figure)


def _diagnosed(cell: CellData) -> dict[str, np.ndarray] | None:
    return next((run.diagnostics for run in cell.runs if run.diagnostics is not None), None)


def pictures(cell: CellData) -> tuple[bytes, bytes] | None:
    """Similarity matrices through depth, and correlations of filters, before and after training.

    Returns:
      Two PNGs, None where no run of the cell was evaluated.
    """
    values = _diagnosed(cell)
    if values is None:
        return None
    times = [when for when in ("before", "after") if f"similarity_{when}" in values]
    given = {"S(x)": values["similarity_inputs"], "S(y)": values["similarity_labels"]}
    rows = []
    for when in times:
        layers = values[f"similarity_{when}"]
        titles = {f"S(h{number})": matrix for number, matrix in enumerate(layers, start=1)}
        rows.append({**given, **titles})
    similarities = _matrices(times, rows, (-1.0, 1.0))
    rows = []
    for when in times:
        levels = values[f"filter_correlation_{when}"]
        rows.append(
            {
                f"kernel {number}\n{level:.3f}": np.abs(matrix)
                for number, (matrix, level) in enumerate(
                    zip(values[f"filters_{when}"], levels, strict=True), start=1
                )
            }
        )
    return similarities, _matrices(times, rows, (0.0, 1.0))


def _matrices(
    labels: Sequence[str], rows: Sequence[dict[str, np.ndarray]], limits: tuple[float, float]
) -> bytes:
    plt = _pyplot()
    columns = max(len(row) for row in rows)
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(0.85 * columns + 1.2, 1.15 * len(rows) + 0.2),
        squeeze=False,
        layout="constrained",
    )
    shown = None
    for label, row, panel in zip(labels, rows, axes, strict=True):
        for (title, matrix), axis in zip(row.items(), panel, strict=True):
            # One scale whose brightness rises with the value, so that it survives a printer.
            shown = axis.imshow(
                matrix.astype(np.float32), cmap="cividis", vmin=limits[0], vmax=limits[1]
            )
            axis.set_title(title, fontsize=7, pad=2)
            axis.set_xticks([])
            axis.set_yticks([])
        panel[0].set_ylabel(label)
    figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.01)
    return _small(_saved(figure, "png"))


def _small(png: bytes) -> bytes:
    """The picture in 64 colours, which one colour scale does with: a third of the bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(
        buffer, "PNG", optimize=True
    )
    return buffer.getvalue()
