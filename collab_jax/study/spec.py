"""What a study is: tables of cells, and for each cell a training run for every seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from collab_jax.config import find_shipped, recipes
from collab_jax.errors import UserError

__all__ = ["Cell", "Program", "Study", "Table", "load_study"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a configuration that is trained with every seed of the study.

    Attributes:
      row: label of its row, such as "CIFAR-10, VGG-16".
      column: label of its column, such as "baseline (2x)".
      recipe: file or shipped name of its recipe.
      method: as a config names it.
      overrides: other values for the recipe's keys.
      paper: the published error in %, if there is one.
      x: its place on the axis of a figure, for tables that are drawn as curves.
    """

    row: str
    column: str
    recipe: str
    method: str = "baseline"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    paper: float | None = None
    x: float | None = None


@dataclass(frozen=True)
class Table:
    """Cells that are read side by side.

    Attributes:
      title: above the table.
      cells: its cells; a row and a column name one of them.
      baseline: the column that the others of a row are compared with, seed by seed.
      x_label: what the cells' `x` is; with it the table is also drawn as curves over `x`.
      note: what a reader has to know, a line.
      contrasts: pairs of columns that are compared directly in every row that has both, the first
        with the second, such as a method with a baseline of equal compute.
    """

    title: str
    cells: tuple[Cell, ...]
    baseline: str = "baseline"
    x_label: str = ""
    note: str = ""
    contrasts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Program:
    """A program of collab_jax other than a training run, such as a plan of memory.

    Attributes:
      name: of its product in the study's folder.
      title: above what it made.
      module: what `python -m` runs.
      arguments: its arguments; `{output}` stands for the product's path without its ending.
      product: the ending of the file that it writes last.
      paper: published figures by name, for the report.
    """

    name: str
    title: str
    module: str
    arguments: tuple[str, ...]
    product: str = ".md"
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What a study file's `get_study()` returns.

    Attributes:
      title: of the report.
      tables: of training runs. A run that stands in several of them is trained once.
      seeds: every cell is trained with each of them; equal seeds share initial parameters, order
        of the data and augmentation, so that cells are compared in pairs.
      programs: measured beside the training runs.
      note: what a reader of the report has to know.
      pictures: whether each cell's run of the first seed is evaluated once it is done, for the
        report's pictures of similarities and filters.
    """

    title: str
    tables: tuple[Table, ...] = ()
    seeds: tuple[int, ...] = (0,)
    programs: tuple[Program, ...] = ()
    note: str = ""
    pictures: bool = True


def load_study(file: str) -> tuple[str, Study]:
    """Runs a study file.

    Args:
      file: as `find_shipped` takes it.

    Returns:
      The study's name, which is the file's, and the study.

    Raises:
      UserError: no such file, an error in it (with its line), or not a study.
    """
    path = find_shipped("study", file)
    study = recipes.call(path, "get_study()")
    if not isinstance(study, Study):
        raise UserError(
            f"{path}: get_study returned {type(study).__name__}, expected a collab_jax.study.Study"
        )
    try:
        _check(study)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return path.stem, study


def _check(study: Study) -> None:
    if not any(table.cells for table in study.tables) and not study.programs:
        raise UserError("the study is empty, expected a cell or a program")
    seeds = study.seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(s) is int for s in seeds):
        raise UserError(f"seeds = {seeds!r}: expected different whole numbers, at least one")
    for table in study.tables:
        places = [(cell.row, cell.column) for cell in table.cells]
        for place in places:
            if places.count(place) > 1:
                raise UserError(f"table {table.title!r}: two cells are {' / '.join(place)!r}")
        for cell in table.cells:
            if table.x_label and cell.x is None:
                raise UserError(
                    f"table {table.title!r}: cell {cell.row} / {cell.column} has no x, expected a "
                    f"number for the axis {table.x_label!r}"
                )
        _check_contrasts(table)
    names = [program.name for program in study.programs]
    if len(set(names)) < len(names):
        raise UserError(f"programs {', '.join(names)}: expected a name of its own for each")


def _check_contrasts(table: Table) -> None:
    rows: dict[str, set[str]] = {}
    for cell in table.cells:
        rows.setdefault(cell.row, set()).add(cell.column)
    for first, second in table.contrasts:
        if first == second or not any({first, second} <= columns for columns in rows.values()):
            raise UserError(
                f"table {table.title!r}: contrast {first!r} with {second!r}, expected two columns "
                "of one row"
            )
