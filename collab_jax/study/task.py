"""A study's cells as runs: each one command of `launch.py` in a run directory of its own."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from collab_jax import config as config_lib
from collab_jax.config import Config, recipes
from collab_jax.errors import UserError
from collab_jax.study.spec import Cell, Program, Study

__all__ = ["Run", "cell_run", "evaluation_run", "interpreter_command", "program_run", "study_runs"]


@dataclass(frozen=True)
class Run:
    """One command and where its results go.

    Attributes:
      name: its run directory, or its product, under the study's folder.
      command: what a shell runs to repeat it alone.
      arguments: what this study runs, after the interpreter's path.
      config: the run's config; None for a program that does not train.
      product: the file under the study's folder that is there once it is done.
      after: the name of the run that has to be done before it begins, "" for none.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    config: Config | None
    product: str
    after: str = ""

    @property
    def id(self) -> str:
        """The name as a part of file names."""
        return self.name.replace("/", "__")


def cell_run(cell: Cell, seed: int, out: Path) -> Run:
    """The run of a cell with one seed.

    Raises:
      UserError: if recipe, method or overrides are not valid.
    """
    overrides = {**cell.overrides, "seed": seed}
    try:
        recipe = _load(cell.recipe, cell.method)
        texts = {key: config_lib.as_text(value) for key, value in overrides.items()}
        config = config_lib.with_file(config_lib.override(recipe, texts))
    except UserError as error:
        raise UserError(f"cell {cell.row} / {cell.column}: {error}") from None
    suffix = config_lib.short_hash(config, recipe)
    name = f"{recipe.name}/{config.method}/seed-{seed}" + (f"-{suffix}" if suffix else "")
    flags = [
        f"--config={_recipe_file(cell.recipe)}:{config.method}",
        *(f"--config.{key}={config_lib.as_text(value)}" for key, value in overrides.items()),
    ]
    return Run(
        name=name,
        command=f"python launch.py {shlex.join(flags)}",
        arguments=("-m", "collab_jax", *flags, f"--workdir={out / name}"),
        config=config,
        product=f"{name}/result.json",
    )


@functools.cache
def _load(recipe: str, method: str) -> Config:
    """Each recipe once: a study of ninety runs would wait seconds for it."""
    return recipes.load(recipe, method)


def _recipe_file(recipe: str) -> str:
    """A shipped recipe as the path that a checkout has it under, any other as it is given."""
    if os.path.isfile(os.path.expanduser(recipe)):
        return recipe
    return f"configs/{config_lib.find_shipped('recipe', recipe).name}"


def program_run(program: Program, out: Path) -> Run:
    """The run of a program."""
    arguments = [
        argument.replace("{output}", str(out / program.name)) for argument in program.arguments
    ]
    return Run(
        name=program.name,
        command=f"python -m {program.module} {shlex.join(arguments)}",
        arguments=("-m", program.module, *arguments),
        config=None,
        product=f"{program.name}{program.product}",
    )


def evaluation_run(run: Run, out: Path) -> Run:
    """The evaluation of a run's last checkpoint, which makes the report's pictures."""
    flags = ["--mode=eval", f"--workdir={out / run.name}", "--checkpoint=last"]
    return Run(
        name=f"{run.name}/evaluation-last",
        command=f"python launch.py {shlex.join(flags)}",
        arguments=("-m", "collab_jax", *flags),
        config=None,
        product=f"{run.name}/evaluation-last/result.json",
        after=run.name,
    )


def study_runs(study: Study, out: Path, only: str = "") -> list[Run]:
    """Every run of a study once, those of the first seed and their evaluations first.

    Args:
      study: a study.
      out: its folder.
      only: a part of a run's name, or of its table's, row's or column's; empty: all runs.

    Raises:
      UserError: if a cell is not valid.
    """
    runs: dict[str, Run] = {}
    for program in study.programs:
        runs[program.name] = program_run(program, out)
    labels = {name: {name} for name in runs}
    for seed in study.seeds:
        for table in study.tables:
            for cell in table.cells:
                run = cell_run(cell, seed, out)
                made = [run]
                if study.pictures and seed == study.seeds[0]:
                    made += [evaluation_run(run, out)]
                for each in made:
                    runs.setdefault(each.name, each)
                    shown = labels.setdefault(each.name, {each.name})
                    shown |= {table.title, cell.row, cell.column}
    return [run for name, run in runs.items() if any(only in label for label in labels[name])]


def interpreter_command(run: Run) -> list[str]:
    """What the operating system runs."""
    return [sys.executable, *run.arguments]
