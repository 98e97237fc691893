"""Plans as a Markdown table and a chart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collab_jax.benchmark.gpus import GPUS
from collab_jax.benchmark.markdown import heading, table
from collab_jax.benchmark.plan import NOTE, PAPER_CASE

__all__ = ["draw", "markdown", "name_of"]

_MIB, _GB = 2**20, 10**9
_PAPER_CARD = "rtx2080ti"


def markdown(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The plans as tables, one for each model, input, GPU and dtype.

    Args:
      rows: what `plan` returned.
      command: what made them.

    Returns:
      The text.
    """
    about = (
        f"Figures {NOTE}; the library's workspace for convolutions is not in them. Peak memory "
        "holds parameters, momentum and the batch, and as temporary memory the activations and "
        "gradients; training-only parameters and their momentum stand apart as well."
    )
    lines = heading("Planned cost of a train step", about, command)
    for title, group in _groups(rows).items():
        baseline = next((row for row in group if row["method"] == "baseline"), None)
        lines += ["", f"## {title}"] + table(_COLUMNS, [_row(row, baseline) for row in group])
        lines += _against_paper(group, baseline)
        lines += _too_large(group)
    return "\n".join(lines) + "\n"


_COLUMNS = (
    *("method", "convolutions", "matrix products", "GFLOP", "FLOPs / baseline", "peak MiB"),
    *("peak / baseline", "temporary MiB", "training-only MiB"),
)


def _groups(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        side = row["image_size"]
        shape = f"{row['batch_size']} x {row['channels']} x {side} x {side}"
        title = f"{row['model']}, {shape}, {row['dtype']}, {GPUS[row['gpu']].name}"
        groups.setdefault(title, []).append(row)
    return groups


def _row(row: dict[str, Any], baseline: dict[str, Any] | None) -> tuple[object, ...]:
    def ratio(name: str) -> str:
        return f"{row[name] / baseline[name]:.3f}" if baseline else ""

    training_only = row["heads_bytes"] * (1 + row["optimizer_bytes"] // row["params_bytes"])
    return (
        name_of(row),
        row["convolutions"],
        row["matrix_products"],
        f"{row['flops'] / 1e9:.1f}",
        ratio("flops"),
        f"{row['peak_bytes'] / _MIB:.1f}",
        ratio("peak_bytes"),
        f"{row['temporary_bytes'] / _MIB:.1f}",
        f"{training_only / _MIB:.1f}",
    )


def name_of(row: dict[str, Any]) -> str:
    """A plan's method, with the keys that were changed for it."""
    changes = ", ".join(f"{key}={value}" for key, value in row["overrides"].items())
    return f"{row['method']} ({changes})" if changes else row["method"]


def _against_paper(group: Sequence[dict[str, Any]], baseline: dict[str, Any] | None) -> list[str]:
    first = group[0]
    if (first["model"], first["batch_size"], first["image_size"]) != ("resnet101", 64, 64):
        return []
    if first["dtype"] != "float32" or baseline is None:
        return []
    cells = [
        (
            row["method"],
            f"{row['peak_bytes'] / _GB:.2f}",
            f"{row['peak_bytes'] / baseline['peak_bytes']:.3f}",
            PAPER_CASE[row["method"]],
            f"{PAPER_CASE[row['method']] / PAPER_CASE['baseline']:.3f}",
        )
        for row in group
        if row["method"] in PAPER_CASE
    ]
    return table(("", "planned GB", "planned ratio", "paper GB", "paper ratio"), cells)


def _too_large(group: Sequence[dict[str, Any]]) -> list[str]:
    budget = GPUS[_PAPER_CARD].memory_gib << 30
    over = [name_of(row) for row in group if row["peak_bytes"] > budget]
    verdict = f"all but {', '.join(over)} fit" if over else "all fit"
    return ["", f"In the 11 GB of the paper's card: {verdict}."]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws peak memory relative to baseline, one panel for each table."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    groups = _groups(rows)
    figure, panels = plt.subplots(
        len(groups), 1, figsize=(7, 0.9 + 2.4 * len(groups)), squeeze=False, layout="constrained"
    )
    for (title, group), axes in zip(groups.items(), panels[:, 0], strict=True):
        baseline = next((row for row in group if row["method"] == "baseline"), group[0])
        names = [name_of(row) for row in group]
        ratios = [row["peak_bytes"] / baseline["peak_bytes"] for row in group]
        bars = axes.barh(names, ratios, color="#4477aa")
        axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=3)
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.set_xlim(0, 1.12 * max(ratios))
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9)
    panels[-1, 0].set_xlabel(f"peak memory / baseline ({NOTE})")
    figure.savefig(path)
    plt.close(figure)
