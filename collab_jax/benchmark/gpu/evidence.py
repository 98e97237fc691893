"""The study at full width: does a collaboration lower the error, and more than longer training?"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from collab_jax.benchmark.gpu.cells import BEST, Sizes

__all__ = ["STUDY", "flops", "results", "start_study", "study_file"]

STUDY = "study"
_RECIPE = "cifar10_vgg16"
_FILE = '''"""The study of `collab_jax.benchmark gpu`: the paper's recipe on a file of images.

{best} trains with {ratio:.3f} times baseline's FLOPs a step, as XLA counts them; the last column is
a baseline of as many FLOPs, {longer} epochs.
"""

from collab_jax.study import Cell, Study, Table

RECIPE, ROW = {recipe!r}, "images"
SAME = {same}
METHODS = ("baseline", {best!r}, "mid", "out")
EQUAL = "baseline at equal compute"


def get_study():
    cells = [Cell(ROW, method, RECIPE, method, SAME) for method in METHODS]
    cells += [Cell(ROW, EQUAL, RECIPE, "baseline", {{**SAME, "epochs": {longer}}})]
    table = Table("Test error (%)", tuple(cells), contrasts=(({best!r}, EQUAL),))
    return Study({title!r}, (table,), seeds={seeds}, pictures=False)
'''


def flops(cell: Mapping[str, Any]) -> dict[str, Any]:
    """FLOPs of a train step of each of a cell's `methods`, as XLA counts them; nothing runs."""
    import jax

    from collab_jax.benchmark.workload import Case

    found = {}
    for method in cell["methods"]:
        case = replace(Case(**cell["case"]), method=method)
        step, init = case.step_and_init()
        lowered = jax.jit(step).lower(jax.eval_shape(init), case.abstract_batch())
        cost: Any = lowered.cost_analysis()
        found[method] = cost["flops"]
    return found


def study_file(sizes: Sizes, data: Path, counted: Mapping[str, float]) -> str:
    """The text of the study file.

    Args:
      sizes: of the study.
      data: the .npz of its images.
      counted: FLOPs of a step of baseline and of the best combination.
    """
    ratio = counted[BEST] / counted["baseline"]
    changes: dict[str, Any] = {
        **sizes.overrides,
        "data.name": str(data),
        "epochs": sizes.epochs,
        "batch_size": sizes.batch_size,
        "log.tensorboard": False,
        "log.progress": False,
        "checkpoint.every_epochs": 10,
    }
    return _FILE.format(
        best=BEST,
        ratio=ratio,
        longer=round(sizes.epochs * ratio),
        recipe=_RECIPE,
        same=changes,
        title=f"VGG-16 on {data.name}, {sizes.epochs} epochs",
        seeds=sizes.seeds,
    )


def start_study(out: Path, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Runs what is missing of the study in `out`; SIGTERM has the run save, and ends it."""
    file = out / f"{STUDY}.py"
    command = [sys.executable, "-m", "collab_jax.study", "--study", str(file)]
    command += ["--out", str(out / STUDY)]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def results(out: Path) -> list[dict[str, Any]]:
    """The study's runs that are done: method, epochs, seed, errors in % and seconds."""
    rows = []
    for path in sorted((out / STUDY).glob("*/*/seed-*/result.json")):
        result = json.loads(path.read_text())
        config = json.loads(path.with_name("config.json").read_text())
        rows.append(
            {
                "method": config["method"],
                "epochs": config["epochs"],
                "seed": config["seed"],
                "last": result["last_test_error"],
                "best": result["best_test_error"],
                "seconds": result["seconds"],
            }
        )
    return rows
