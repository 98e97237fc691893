"""Studies: tables of training runs, where they run, and the search for the terms' weights."""

from collab_jax.study import paper
from collab_jax.study.spec import Cell, Program, Study, Table, load_study

__all__ = ["Cell", "Program", "Study", "Table", "load_study", "paper"]
