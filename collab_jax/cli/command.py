"""The command line: flags in any order to a `Command`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from collab_jax import config as config_lib
from collab_jax.config import Config, recipes
from collab_jax.errors import UserError
from collab_jax.runs.directory import read_config

__all__ = ["Command", "UsageError", "one_line", "parse", "usage"]

_PROCESS_FLAGS = ("--coordinator", "--num_processes", "--process_id")
_MODES = ("train", "eval", "export")
# What says which data a run is evaluated on; content, not name, tells whether they are its own.
_OF_DATA = ("data.name", "data.test", "data.image_size")
_RUN_FILES = ("config.json", "metrics.jsonl", "checkpoints")


class UsageError(UserError):
    """A command line that says too little: the usage is shown with the message."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What a command line asks for.

    Attributes:
        config: the configuration.
        workdir: the run directory.
        mode: train, evaluate, export or predict.
        checkpoint: which checkpoint to evaluate, to export or to predict with: best, last or a
            step.
        output: where an evaluation or an export goes; None: into the run directory.
        resume: go on with the run that the directory holds; if False it must hold none.
        profile: the first step to trace and the one after the last, None for no trace.
        command_line: the arguments as one line that a shell reads back.
        processes: the coordinator's address, how many processes train together, and which of
            them this is; None: it trains alone, or SLURM says.
        images: the files to predict classes of.
        warnings: overrides that the method makes no use of, one line each.
    """

    config: Config
    workdir: Path
    mode: Literal["train", "eval", "export", "predict"] = "train"
    checkpoint: str = "best"
    output: Path | None = None
    resume: bool = True
    profile: tuple[int, int] | None = None
    command_line: str = ""
    processes: tuple[str, int, int] | None = None
    images: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def _parser(program: str) -> config_lib.FlagParser:
    parser = config_lib.FlagParser(
        prog=program,
        usage=(
            "%(prog)s --config FILE[:METHOD] [--workdir DIR] [--config.KEY=VALUE ...]\n"
            "       %(prog)s --mode eval|export --workdir DIR [--checkpoint best|last|STEP]\n"
            "       %(prog)s --workdir DIR --predict IMAGE ... [--checkpoint best|last|STEP]"
        ),
        formatter_class=partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=28, width=80
        ),
        overrides_help="another value for one key of the recipe",
    )
    add = parser.add_flag
    add(
        "--config",
        "FILE[:METHOD]",
        "a recipe's file or a shipped recipe's name; METHOD is baseline, tree, multi_instance or "
        f"any of {', '.join((*config_lib.TERMS, *config_lib.RIVALS))} joined by +",
        "configs/cifar10_vgg16.py",
    )
    add(
        "--workdir",
        "DIR",
        "run directory; else runs/CONFIG/METHOD/seed-N, with a short hash appended where other "
        "keys are overridden",
        "runs/first",
    )
    add(
        "--mode",
        "train|eval|export",
        "train, evaluate the run in DIR, or write its network as StableHLO that runs with jax and "
        "numpy alone (default: train)",
        "eval",
    )
    add(
        "--checkpoint",
        "best|last|STEP",
        "checkpoint to evaluate, to export or to predict with (default: best)",
        "best",
    )
    add(
        "--predict",
        "IMAGE",
        "print each image's most probable class and its probability, by the run in DIR",
        "photo.png",
        several=True,
    )
    add(
        "--output",
        "DIR",
        "where to write evaluation-CHECKPOINT or exported-CHECKPOINT (default: the run directory)",
        "elsewhere",
    )
    coordinator = "address of the first of several processes that train one run together"
    add("--coordinator", "HOST:PORT", coordinator, "localhost:1234")
    add("--num_processes", "N", "how many they are", "2")
    add(
        "--process_id",
        "I",
        "which one this is, from 0; under SLURM none of the three is needed",
        "0",
    )
    add(
        "--profile",
        "steps=FIRST:END",
        "write a trace of training steps FIRST to END - 1, counted from 0, for TensorBoard and "
        "Perfetto into DIR/profile",
        "steps=10:20",
    )
    for flag, text in {
        "--resume": "go on with the run that the directory holds (default)",
        "--no-resume": "refuse a run directory that holds a run",
        "--keys": "print every KEY with its default, meaning and allowed values; --keys WORD: "
        "those that hold WORD",
        "--version": "print the version",
        "--help": "print this text",
    }.items():
        parser.add_argument(flag, action="store_true", default=None, help=text)
    return parser


def usage(program: str = "launch.py") -> str:
    """The help text with the list of shipped recipes."""
    shipped = config_lib.list_shipped("recipe")
    width = max(map(len, shipped), default=0)
    lines = [f"  {name:<{width}}  {header}" for name, header in shipped.items()]
    parser = _parser(program)
    parser.epilog = "\n".join(["recipes:", *lines])
    return parser.format_help()


def parse(arguments: Sequence[str]) -> Command:
    """Reads a command line.

    Args:
        arguments: without the program's name; flags may come in any order.

    Raises:
        UserError: anything that is not as `usage` says, in one line.
    """
    try:
        return _parse(arguments)
    except UserError as error:
        # An argument may hold anything, also what a terminal cannot print.
        raise type(error)(one_line(error)) from None


def _parse(arguments: Sequence[str]) -> Command:
    given = _parser("launch.py").read(arguments)
    flags = {
        f"--{name}": value
        for name, value in vars(given).items()
        if isinstance(value, str) and name != "overrides"
    }
    mode, resume = given.mode or "train", not given.no_resume
    if mode not in _MODES:
        hint = config_lib.did_you_mean(mode, _MODES)
        raise UserError(f"--mode {mode!r}: expected train, eval or export{hint}")
    if given.predict:
        if given.mode is not None:
            raise UserError("--predict and --mode exclude each other, expected one of them")
        mode = "predict"
    of_modes = {
        "--checkpoint": (*_MODES[1:], "predict"),
        "--output": _MODES[1:],
        "--profile": _MODES[:1],
    }
    for flag, modes in of_modes.items():
        if flag in flags and mode not in modes:
            wanted = " or ".join(name for name in modes if name != "predict")
            also = " or --predict" if "predict" in modes else ""
            raise UserError(f"{flag} {flags[flag]}: expected only with --mode {wanted}{also}")
    if given.resume and given.no_resume:
        raise UserError("--resume and --no-resume exclude each other, expected one of them")
    directory, output = (_directory(flag, flags.get(flag)) for flag in ("--workdir", "--output"))
    if given.config is not None:
        config, workdir = _from_recipe(given.config, given.overrides)
        workdir = directory or workdir
        run = None if mode == "train" else read_config(workdir)
    elif mode != "train" and directory is not None:
        workdir, run = directory, read_config(directory)
        config = config_lib.override(run, given.overrides)
    else:
        also = "" if mode == "train" else " or --workdir DIR"
        raise UsageError(f"--config FILE[:METHOD]{also} is missing")
    if run is None:
        _check_workdir(workdir, resume=resume)
    elif conflicts := config_lib.conflict_text(run, config, also_free=_free(mode, run, config)):
        # A run is not evaluated as what it is not.
        raise UserError(f"{workdir}: the run was trained with {conflicts} (--config is not needed)")
    return Command(
        config=config,
        workdir=workdir,
        mode=mode,
        checkpoint=_parse_checkpoint(flags.get("--checkpoint", "best")),
        output=output,
        resume=resume,
        profile=_parse_profile(flags["--profile"]) if "--profile" in flags else None,
        command_line=shlex.join(arguments),
        processes=_parse_processes(flags, mode),
        images=tuple(given.predict or ()),
        warnings=tuple(
            f"config.{key} has no effect with {reason}"
            for key, reason in config_lib.without_effect(config, given.overrides).items()
        ),
    )


def _directory(flag: str, text: str | None) -> Path | None:
    if text is None:
        return None
    if not text.strip():
        raise UserError(f"{flag} is empty, expected a directory")
    if not text.isprintable():
        raise UserError(f"{flag} {text}: expected printable characters")
    return Path(os.path.expanduser(text))


def _free(mode: str, run: Config, config: Config) -> tuple[str, ...]:
    return _OF_DATA if mode == "eval" and run.data.name != config.data.name else ()


def _from_recipe(argument: str, overrides: dict[str, str]) -> tuple[Config, Path]:
    """The overridden configuration and its default run directory."""
    file, method = recipes.split_argument(argument)
    if "method" in overrides:
        asked = config_lib.parse_method(overrides["method"])
        if method is not None and config_lib.parse_method(method) != asked:
            raise UserError(f"method is {method} in --config and {asked} in --config.method")
        # As the recipe's argument, so that a recipe may depend on it.
        method = asked
    recipe = recipes.load(file, method)
    config = config_lib.override(recipe, overrides)
    name = config.name or recipe.name
    suffix = config_lib.short_hash(config, recipe)
    seed = f"seed-{config.seed}" + (f"-{suffix}" if suffix else "")
    return config_lib.with_file(config), Path("runs") / name / config.method / seed


def _check_workdir(workdir: Path, *, resume: bool) -> None:
    try:
        if workdir.exists() and not workdir.is_dir():
            raise UserError(f"--workdir {workdir}: is a file, expected a directory")
        found = [name for name in _RUN_FILES if (workdir / name).exists()]
    except (OSError, ValueError) as error:
        raise UserError(f"--workdir {workdir}: {error}") from None
    if found and not resume:
        names = ", ".join(found)
        raise UserError(
            f"--no-resume: {workdir} holds a run ({names}), expected a directory without"
        )


def _parse_processes(flags: dict[str, str], mode: str) -> tuple[str, int, int] | None:
    given = [flag for flag in _PROCESS_FLAGS if flag in flags]
    if not given:
        return None
    if mode != "train":
        raise UserError(f"{given[0]} {flags[given[0]]}: expected only with --mode train")
    missing = [flag for flag in _PROCESS_FLAGS if flag not in flags]
    if missing:
        raise UserError(f"{given[0]} is given without {' and '.join(missing)}, expected all three")
    coordinator, *numbers = (flags[flag] for flag in _PROCESS_FLAGS)
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator {coordinator!r}: expected HOST:PORT")
    for flag, text in zip(_PROCESS_FLAGS[1:], numbers, strict=True):
        if not (text.isascii() and text.isdigit() and len(text) < 7):
            raise UserError(f"{flag} {text!r}: expected a whole number")
    count, number = map(int, numbers)
    if not number < count:
        raise UserError(f"--process_id {number}: expected less than --num_processes {count}")
    return coordinator, count, number


def _parse_checkpoint(text: str) -> str:
    if text in ("best", "last"):
        return text
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return str(int(text))
    hint = config_lib.did_you_mean(text, ("best", "last"))
    raise UserError(f"--checkpoint {text!r}: expected best, last or a step{hint}")


def _parse_profile(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"steps=([0-9]{1,18}):([0-9]{1,18})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"--profile {text!r}: expected steps=FIRST:END, such as steps=10:20")
    return int(match[1]), int(match[2])


def one_line(told: object) -> str:
    """A text, such as an error's, on one printable line."""
    text = " ".join(str(told).split())
    return text if text.isprintable() else ascii(text)[1:-1]
