"""Small studies whose runs are those of a program that trains nothing."""

from pathlib import Path

from collab_jax.study import load_study
from collab_jax.study.task import study_runs

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
STUDY = """
from collab_jax.study import Cell, Study, Table
SHORT = {{"epochs": 2, "decay_epochs": (1,)}}
def get_study():
    cells = tuple(Cell("digits", m, "digits_vgg16", m, SHORT) for m in {methods})
    return Study("a study", (Table("a table", cells),), seeds={seeds}, pictures={pictures})
"""


def runs_of(arguments):
    """The runs by method and seed."""
    out = Path(arguments[3])
    runs = study_runs(load_study(arguments[1])[1], out)
    return {(r.config.method, r.config.seed): out / r.name for r in runs if r.config is not None}


def starts(run_dir):
    """How often a run was started."""
    return (run_dir.parent / f"{run_dir.name}.starts").read_text().count("started")
