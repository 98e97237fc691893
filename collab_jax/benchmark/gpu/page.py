"""Everything that was measured, as one Markdown page."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from collab_jax.benchmark.gpu.cells import label
from collab_jax.benchmark.gpu.flags import PARTS
from collab_jax.benchmark.gpu.parity import BOUNDS
from collab_jax.benchmark.markdown import heading, table

__all__ = ["PAGE", "page"]

PAGE = "gpu.md"
_MIB = 2**20


def page(records: Sequence[Mapping[str, Any]], notes: Sequence[str], command: str) -> str:
    """The page's text.

    Args:
      records: the newest of each cell.
      notes: what could not be done, a line each.
      command: the latest.
    """
    lines = heading("The methods on this device", _about(records), command)
    for part in PARTS:
        of_part = [record for record in records if record["cell"]["part"] == part]
        measured = [record for record in of_part if "figures" in record]
        if not of_part:
            continue
        title, about, write = _SECTIONS[part]
        lines += ["", f"## {title}", "", about]
        lines += write(measured) if measured else []
        for record in of_part:
            if "figures" not in record:
                lines += ["", _failure(record)]
        seconds = sum(record.get("seconds", 0) for record in of_part)
        lines += ["", f"Took {seconds:.0f} s."]
    if notes:
        lines += ["", "## Not measured", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _about(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return "Nothing is measured yet."
    machines = []
    for record in records:
        machine = record["machine"]
        text = f"{machine['device']}, jax {machine['jax']}"
        text += f" ({machine['plugin']})" if machine["plugin"] else ""
        text += f", revision {machine['git_revision']}" if machine["git_revision"] else ""
        machines += [] if text in machines else [text]
    gpu = all(record["machine"]["platform"] == "gpu" for record in records)
    where = "Run on the GPU" if gpu else "A dry run without a GPU: no figure here is a GPU's"
    return (
        f"{where}: {'; '.join(machines)}. Figures called planned are XLA's for the very program "
        "that ran; all others were measured."
    )


def _failure(record: Mapping[str, Any]) -> str:
    told = f"failed: {record['error']}" if "error" in record else record["skipped"]
    return f"{label(dict(record['cell']))}: {told}"


def _case(record: Mapping[str, Any]) -> str:
    case = record["cell"]["case"]
    side = case["image_size"]
    return f"{case['model']}, {case['batch_size']} x {case['channels']} x {side} x {side}"


def _parity(records: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for record in records:
        figures = record["figures"]
        rows.append(
            (
                f"{record['cell']['case']['method']} ({_case(record)})",
                f"{figures['loss_cpu']:.6f}",
                *(f"{figures[name]['largest']:.1e}" for name in BOUNDS),
                f"`{figures['gradients']['where']}`",
                "yes" if figures["within"] else "**no**",
            )
        )
    columns = ("method", "loss on the CPU", *(f"{n}, largest" for n in BOUNDS))
    return table((*columns, "array of that gradient", "within"), rows)


def _failed_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"- {row['name']}: failed: {row['error']}" for row in rows if "error" in row]
    return ["", *lines] if lines else []


def _step(records: Sequence[Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for record in records:
        rows = [row for row in record["figures"]["rows"] if "error" not in row]
        peak = record["figures"]["peak_flops"]
        known = f"peak {peak / 1e12:.1f} TFLOP/s" if peak else "no peak known of this card"
        lines += ["", f"### {_case(record)}, {record['cell']['precision']}", "", f"{known}."]
        first = {
            row["dispatch"]: row for row in reversed(rows) if row["method"] == rows[0]["method"]
        }
        cells = [
            (
                row["name"],
                *(f"{1e3 * row[name]:.3f}" for name in ("median", "fastest", "slowest")),
                f"{row['median'] / first[row['dispatch']]['median']:.2f}",
                f"{row['flops'] / first[row['dispatch']]['flops']:.2f}",
                f"{row['images_per_second']:.0f}",
                f"{100 * row['utilisation']:.1f}" if row["utilisation"] else "",
                f"{row['compile_seconds']:.1f}",
            )
            for row in rows
        ]
        columns = ("", "median ms", "fastest ms", "slowest ms", "time / first", "FLOPs / first")
        lines += table((*columns, "images/s", "utilisation %", "compile s"), cells)
        lines += _failed_rows(record["figures"]["rows"])
    return lines


def _memory(records: Sequence[Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for record in records:
        rows = [row for row in record["figures"]["rows"] if "error" not in row]
        cells = [
            (
                row["name"],
                f"{row['planned_bytes'] / _MIB:.1f}" if row["planned_bytes"] else "",
                _device_mib(row),
                f"{row['device_bytes'] / row['planned_bytes']:.3f}"
                if row["device_bytes"] and row["planned_bytes"]
                else "",
            )
            for row in rows
        ]
        lines += ["", f"### {_case(record)}, {record['cell']['precision']}"]
        lines += table(("", "planned MiB", "device MiB", "device / planned"), cells)
        lines += _failed_rows(record["figures"]["rows"])
    return lines


def _device_mib(row: Mapping[str, Any]) -> str:
    if row["device_bytes"]:
        return f"{row['device_bytes'] / _MIB:.1f}"
    return f"at most {row['at_most'] / _MIB:.1f}" if row["at_most"] else "not told"


def _torch(records: Sequence[Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for record in records:
        rows = [row for row in record["figures"]["rows"] if "error" not in row]
        cells = [
            (
                row["name"],
                *(f"{1e3 * row[name]:.3f}" for name in ("median", "fastest", "slowest")),
                f"{row['images_per_second']:.0f}",
            )
            for row in rows
        ]
        lines += ["", f"### {_case(record)}, PyTorch {record['figures']['torch']}"]
        lines += table(("", "median ms", "fastest ms", "slowest ms", "images/s"), cells)
        lines += _failed_rows(record["figures"]["rows"])
    return lines


def _repeat(records: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            record["cell"]["run"],
            record["figures"]["arrays"],
            f"`{record['figures']['sha256'][:16]}`",
            f"`{record['figures']['metrics_sha256'][:16]}`",
            f"{record['figures']['loss']:.6f}",
        )
        for record in records
    ]
    lines = table(("run", "arrays", "SHA-256 of the state", "of the metrics", "loss"), rows)
    names = ("sha256", "metrics_sha256")
    if len(records) > 1:
        equal = len({tuple(r["figures"][name] for name in names) for r in records}) == 1
        lines += ["", "Equal bit for bit." if equal else "**Not equal.**"]
    return lines


def _study(records: Sequence[Mapping[str, Any]]) -> list[str]:
    lines: list[str] = []
    for record in records:
        groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for row in record["figures"]["rows"]:
            groups.setdefault((row["method"], row["epochs"]), []).append(row)
        cells = []
        for (method, epochs), rows in sorted(groups.items(), key=lambda item: item[0][1]):
            last = [row["last"] for row in rows]
            spread = f" ± {statistics.stdev(last):.2f}" if len(last) > 1 else ""
            cells.append(
                (
                    f"{method}, {epochs} epochs",
                    len(rows),
                    f"{statistics.mean(last):.2f}{spread}",
                    f"{statistics.mean(row['best'] for row in rows):.2f}",
                    f"{statistics.mean(row['seconds'] for row in rows):.0f}",
                )
            )
        columns = ("", "runs", "test error after the last epoch, %", "lowest, %", "seconds a run")
        lines += table(columns, cells)
        whole = record["figures"]["whole"]
        lines += ["", "All runs are done." if whole else "Not all runs are done."]
    return lines


_SECTIONS: dict[str, tuple[str, str, Callable[[Sequence[Mapping[str, Any]]], list[str]]]] = {
    "parity": (
        "One step on the GPU and on the CPU",
        "float32 at highest matmul precision, from the same state, images, masks and crops. "
        "Differences: of the loss and its terms relative to the CPU's, of every array of the "
        "gradients and of batch norm's running statistics relative to its largest value. Bounds: "
        + ", ".join(f"{name} {bound:g}" for name, bound in BOUNDS.items())
        + ".",
        _parity,
    ),
    "step": (
        "Time of a step",
        "As a run dispatches it, with augmentation, images on the device: `step` one program a "
        "step, `chunk` many in one scanned program; both without waiting in between. All programs "
        "of a table in turn, warm-up left out. Utilisation: FLOPs that XLA counts in the program "
        "before it is optimised, over time and the card's peak at that precision.",
        _step,
    ),
    "memory": (
        "Memory",
        "Planned by XLA for the program, and the device's peak as JAX's allocator told it while "
        "the program ran, with parameters, momentum and a chunk's images in both.",
        _memory,
    ),
    "torch": (
        "Beside PyTorch",
        "Baseline, all programs of a table in turn. PyTorch: channels last, float32 with TF32 or "
        "bf16 autocast. Its step takes ready images from the device; ours also gathers, crops, "
        "flips and normalises.",
        _torch,
    ),
    "repeat": (
        "Deterministic mode",
        "One epoch of random images by the loop that every run has, all four terms, twice with "
        "`deterministic=true`, the second compiled anew.",
        _repeat,
    ),
    "study": (
        "The study",
        "Mean and standard deviation over the seeds that are done; `python -m collab_jax.report "
        "OUT/study --out REPORT` writes paired differences with their intervals.",
        _study,
    ),
}
