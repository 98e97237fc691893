"""What the CPU's form of a convolution brings to a train step, beside XLA's own.

    python tools/convolution_form.py --out results/convolution_form.md

For each network, width and image size it compiles the baseline's step with
`collab_jax.models.convolution` and with `lax.conv_general_dilated`, and times them in turn. It
writes a Markdown table of medians.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path
from unittest import mock

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jax import lax  # noqa: E402

from collab_jax.benchmark.step_time import prepare, time_in_turn  # noqa: E402
from collab_jax.benchmark.workload import Case  # noqa: E402
from collab_jax.models import blocks, heads  # noqa: E402


def timed(case: Case, repeats: int) -> dict[str, float]:
    """Median seconds of a step, with our form and with XLA's own convolution."""
    ours, _ = prepare(case)
    with (
        mock.patch.object(blocks, "conv_general_dilated", lax.conv_general_dilated),
        mock.patch.object(heads, "conv_general_dilated", lax.conv_general_dilated),
    ):
        plain, _ = prepare(case)
    seconds = time_in_turn({"ours": ours, "plain": plain}, repeats)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--widths", type=float, nargs="+", default=[0.125, 0.25, 1.0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--models", nargs="+", default=["vgg16", "resnet18"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args(arguments)
    rows = []
    for model in args.models:
        for width in args.widths:
            for size in args.sizes:
                overrides = {"model.width": width, "model.classifier_width": 512}
                case = Case(model, batch_size=args.batch, image_size=size, overrides=overrides)
                found = timed(case, args.repeats)
                rows.append(
                    f"| {model} | {width:g} | {size} | {1e3 * found['ours']:.0f} | "
                    f"{found['plain'] / found['ours']:.2f} |"
                )
                print(rows[-1], flush=True)
    command = " ".join(["python tools/convolution_form.py", *arguments])
    head = [
        "# The CPU's form of a convolution",
        "",
        f"`{command}`: a train step of the baseline, batch {args.batch}, medians of "
        f"{args.repeats} in turn, on {len(os.sched_getaffinity(0))} core(s). Above 1, the form "
        "earns its lines.",
        "",
        "| network | width | pixels a side | ours, ms | XLA's own / ours |",
        "|---|---:|---:|---:|---:|",
    ]
    args.out.write_text("\n".join([*head, *rows]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
