"""The error of a study's last checkpoints on corrupted test images, beside baseline's, by seed.

Command:
    python tools/corruptions.py runs/evidence > corruptions.md

Four corruptions after D. Hendrycks and T. Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", 2019, of the strength that they call 3 for CIFAR-10, at the
size that the network sees: Gaussian noise, Gaussian blur, brightness and contrast. The noise is the
same for every run. Runs whose checkpoint is not there are left out. Intervals and p are the
report's; Holm's method is over the differences of a row, all corruptions together.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

import collab_jax
from collab_jax import data
from collab_jax.errors import UserError
from collab_jax.report.statistics import compare, paired_difference


def _noise(images: np.ndarray) -> np.ndarray:
    return images + 0.08 * np.random.default_rng(0).standard_normal(images.shape)


def _blur(images: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(images, (0, 0.7, 0.7, 0))


def _brightness(images: np.ndarray) -> np.ndarray:
    return images + 0.15


def _contrast(images: np.ndarray) -> np.ndarray:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + 0.4 * (images - mean)


CORRUPTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": lambda images: images,
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
}


def corrupt(images: np.ndarray, name: str) -> np.ndarray:
    """uint8 images (B, H, W, C), corrupted; values beyond 0 and 255 are cut."""
    changed = CORRUPTIONS[name](images / 255)
    return np.round(255 * np.clip(changed, 0, 1)).astype(np.uint8)


def errors(run: Path, tests: dict[tuple, dict[str, np.ndarray]]) -> dict[str, float]:
    """Test error in % by corruption of a run's last checkpoint."""
    restored = collab_jax.load(run, "last")
    options = restored.config.data
    key = (options.name, options.image_size)
    if key not in tests:
        loaded = data.load(
            options.name,
            data_dir=options.dir,
            manual_dir=options.manual_dir,
            image_size=options.image_size,
        )
        images = np.asarray(loaded.test.images)
        tests[key] = {name: corrupt(images, name) for name in CORRUPTIONS}
        tests[key]["labels"] = np.asarray(loaded.test.labels)
    labels = tests[key]["labels"]
    return {
        name: 100 * float(np.mean(restored.logits(tests[key][name]).argmax(-1) != labels))
        for name in CORRUPTIONS
    }


def markdown(table: dict, found: dict[tuple[str, str], dict[str, dict[int, float]]]) -> list[str]:
    """A table of mean errors and paired differences, by row and column."""
    names = list(CORRUPTIONS)
    lines = [
        f"## {table['title']}",
        "",
        "| row | method | " + " | ".join(names) + " |",
        "|---|---|" + "---:|" * len(names),
    ]
    for row in dict.fromkeys(row for row, _ in found):
        columns = [column for r, column in found if r == row]
        base = found.get((row, table["baseline"]), {})
        pairs = [(c, n) for c in columns if base and c != table["baseline"] for n in names]
        differences = compare([paired_difference(found[row, c][n], base[n]) for c, n in pairs])
        spelled = {}
        for pair, d in zip(pairs, differences, strict=True):
            if d.mean is not None:
                spelled[pair] = f"<br>{d.mean:+.2f}"
            if d.low is not None:
                spelled[pair] += (
                    f" [{d.low:+.2f}, {d.high:+.2f}]<br>p {d.p:.3f}, Holm {d.adjusted:.3f}"
                )
        for column in columns:
            cells = [
                f"{np.mean(list(found[row, column][n].values())):.2f}{spelled.get((column, n), '')}"
                for n in names
            ]
            seeds = len(found[row, column]["none"])
            lines.append(f"| {row} | {column} ({seeds}) | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    study = parser.parse_args().study
    tests: dict[tuple, dict[str, np.ndarray]] = {}
    known: dict[str, dict[str, float]] = {}
    for table in json.loads((study / "study.json").read_text())["tables"]:
        found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
        for cell in table["cells"]:
            for run in cell["runs"]:
                if not (study / run["path"] / "result.json").exists():
                    continue
                if run["path"] not in known:
                    try:
                        known[run["path"]] = errors(study / run["path"], tests)
                    except UserError as error:
                        print(error, file=sys.stderr)
                        continue
                by_name = found.setdefault((cell["row"], cell["column"]), {})
                for name, value in known[run["path"]].items():
                    by_name.setdefault(name, {})[run["seed"]] = value
        print("\n".join(markdown(table, found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
