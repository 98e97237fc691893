"""The command line: flags in any order to a `Command`, and the program that carries it out."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict

from collab_jax import config as config_lib
from collab_jax.config import recipes
from collab_jax.errors import RunError, UserError
from collab_jax.runs.environment import request_determinism
from collab_jax.runs.signals import EXIT_CODE, Interrupted, stop_at_once

__all__ = [
    "Command",
    "UsageError",
    "execute",
    "main",
    "parse",
    "usage",
]

USAGE = """\
usage: {program} --config FILE[:METHOD] [--workdir DIR] [--config.KEY=VALUE ...]
       {program} --mode eval|export --workdir DIR [--checkpoint best|last|STEP]

  --config FILE[:METHOD]    a recipe's file or a shipped recipe's name; METHOD is baseline, tree,
                            multi_instance or any of out, mid, pull_push, kernel joined by +
  --config.KEY=VALUE        another value for one key of the recipe
  --workdir DIR             run directory; else runs/CONFIG/METHOD/seed-N, with a short hash
                            appended where other keys are overridden
  --mode train|eval|export  train, evaluate the run in DIR, or write its network as StableHLO that
                            runs with jax and numpy alone (default: train)
  --checkpoint best|last|STEP
                            checkpoint to evaluate or export (default: best)
  --seeds N,N,...           train a run for each seed, all in one program, each in a run directory
                            of its own, seed-N in DIR
  --coordinator HOST:PORT   address of the first of several processes that train one run together
  --num_processes N         how many they are
  --process_id I            which one this is, from 0; under SLURM none of the three is needed
  --profile steps=FIRST:END
                            write a trace of training steps FIRST to END - 1, counted from 0, for
                            TensorBoard and Perfetto into DIR/profile
  --no-resume               refuse a run directory that holds a run (default: --resume, go on)
  --keys                    print every KEY with its type, default, allowed values and meaning
  --help                    print this text
"""
_PROCESS_FLAGS = ("--coordinator", "--num_processes", "--process_id")
_VALUE_FLAGS = (
    *("--config", "--workdir", "--mode", "--checkpoint", "--profile", "--seeds"),
    *_PROCESS_FLAGS,
)
_PROGRAM_BYTES = 4 << 30
_SWITCHES = ("--resume", "--no-resume", "--keys", "--help")
_RUN_FILES = ("config.json", "metrics.jsonl", "checkpoints")


class UsageError(UserError):
    """A command line that says too little: the usage is shown with the message."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What a command line asks for.

    Attributes:
        config: the resolved and validated configuration.
        workdir: the run directory.
        mode: train, evaluate or export.
        checkpoint: which checkpoint to evaluate or export: best, last or a step.
        resume: go on with the run that the directory holds; if False it must hold none.
        profile: the first step to trace and the one after the last, None for no trace.
        command_line: the arguments as one line that a shell reads back.
        seeds: (seed, run directory) of runs to train together; empty: one run, the config's.
        processes: the coordinator's address, how many processes train together, and which of
            them this is; None: it trains alone, or SLURM says.
        warnings: overrides that the method makes no use of, one line each.
    """

    config: ConfigDict
    workdir: Path
    mode: Literal["train", "eval", "export"] = "train"
    checkpoint: str = "best"
    resume: bool = True
    profile: tuple[int, int] | None = None
    command_line: str = ""
    seeds: tuple[tuple[int, Path], ...] = ()
    processes: tuple[str, int, int] | None = None
    warnings: tuple[str, ...] = ()


def usage(program: str = "launch.py") -> str:
    """The help text with the list of shipped recipes."""
    shipped = recipes.list_recipes()
    width = max(map(len, shipped), default=0)
    lines = [f"  {name:<{width}}  {header}" for name, header in shipped.items()]
    return USAGE.format(program=program) + "\nrecipes:\n" + "\n".join(lines) + "\n"


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Arguments as flags and config overrides, each by name."""
    flags: dict[str, str] = {}
    overrides: dict[str, str] = {}
    remaining = list(arguments)
    while remaining:
        flag, equals, value = remaining.pop(0).partition("=")
        is_override = flag.startswith("--config.")
        if not flag.startswith("-") or flag in ("-", "--"):
            raise UserError(f"stray argument {flag + equals + value!r}, expected flags only")
        if is_override:
            config_lib.check_key(flag.removeprefix("--config."))
        elif flag not in (*_VALUE_FLAGS, *_SWITCHES):
            hint = config_lib.did_you_mean(flag, (*_VALUE_FLAGS, *_SWITCHES))
            key = flag.lstrip("-")
            if key in config_lib.SCHEMA:
                hint = f"; did you mean --config.{key}?"
            raise UserError(f"unknown flag {flag!r}{hint or '; --help lists the flags'}")
        if flag in flags or flag in overrides:
            raise UserError(f"{flag} is given twice, expected it once")
        if flag in _SWITCHES:
            if equals:
                raise UserError(f"{flag}={value}: expected no value")
        elif not equals:
            if not remaining or remaining[0].startswith("--"):
                raise UserError(f"{flag} needs a value, such as {flag}={_example(flag)}")
            value = remaining.pop(0)
        (overrides if is_override else flags)[flag] = value
    return flags, {flag.removeprefix("--config."): value for flag, value in overrides.items()}


def _example(flag: str) -> str:
    key = config_lib.SCHEMA.get(flag.removeprefix("--config."))
    if key is None:
        examples = {"--mode": "eval", "--checkpoint": "best", "--workdir": "runs/first"}
        examples["--profile"] = "steps=10:20"
        return examples.get(flag, "configs/cifar10_vgg16.py")
    return config_lib.as_text(key.default) or "TEXT"


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
        raise type(error)(_one_line(error)) from None


def _parse(arguments: Sequence[str]) -> Command:
    flags, overrides = _split(arguments)
    mode = flags.get("--mode", "train")
    if mode not in ("train", "eval", "export"):
        hint = config_lib.did_you_mean(mode, ("train", "eval", "export"))
        raise UserError(f"--mode {mode!r}: expected train, eval or export{hint}")
    if "--checkpoint" in flags and mode == "train":
        raise UserError(
            f"--checkpoint {flags['--checkpoint']}: expected only with --mode eval or export"
        )
    if "--profile" in flags and mode != "train":
        raise UserError(f"--profile {flags['--profile']}: expected only with --mode train")
    if "--resume" in flags and "--no-resume" in flags:
        raise UserError("--resume and --no-resume exclude each other, expected one of them")
    if not flags.get("--workdir", "-").strip():
        raise UserError("--workdir is empty, expected a directory")
    if not flags.get("--workdir", "").isprintable():
        raise UserError(f"--workdir {flags['--workdir']}: expected printable characters")
    directory = os.path.expanduser(flags.get("--workdir", ""))
    seeds: tuple[tuple[int, Path], ...] = ()
    if "--config" in flags:
        config, workdir = _from_recipe(flags["--config"], overrides)
        workdir = Path(directory) if directory else workdir
        if "--seeds" in flags:
            seeds = _parse_seeds(flags, overrides, mode)
    elif mode != "train" and directory:
        workdir = Path(directory)
        config = _from_run(workdir, overrides)
    else:
        also = "" if mode == "train" else " or --workdir DIR"
        raise UsageError(f"--config FILE[:METHOD]{also} is missing")
    if mode != "train":
        _check_same_run(workdir, config)
    else:
        for path in [path for _, path in seeds] or [workdir]:
            _check_workdir(path, resume="--no-resume" not in flags)
    idle = config_lib.without_effect(config, overrides)
    return Command(
        config=config,
        workdir=workdir,
        mode=mode,
        checkpoint=_parse_checkpoint(flags.get("--checkpoint", "best")),
        resume="--no-resume" not in flags,
        profile=_parse_profile(flags["--profile"]) if "--profile" in flags else None,
        command_line=shlex.join(arguments),
        seeds=seeds,
        processes=_parse_processes(flags, mode),
        warnings=tuple(f"config.{key} has no effect with method {config.method}" for key in idle),
    )


def _from_recipe(argument: str, overrides: dict[str, str]) -> tuple[ConfigDict, Path]:
    """The overridden configuration and its default run directory."""
    file, method = recipes.split_argument(argument)
    if "method" in overrides:
        asked = config_lib.parse_method(overrides["method"])
        if method is not None and config_lib.parse_method(method) != asked:
            raise UserError(f"method is {method} in --config and {asked} in --config.method")
        # As the recipe's argument, so that a recipe may depend on it.
        method = asked
    recipe = recipes.load(file, method)
    config = config_lib.from_json(config_lib.to_json(recipe))
    for key, text in overrides.items():
        config_lib.override(config, key, text)
    config_lib.validate(config)
    name = config.name or recipe.name
    suffix = config_lib.short_hash(config, recipe)
    seed = f"seed-{config.seed}" + (f"-{suffix}" if suffix else "")
    return config, Path("runs") / name / config.method / seed


def _read_run(workdir: Path) -> ConfigDict:
    path = workdir / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{workdir}: holds no run, expected {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None
    return config_lib.from_json(text, str(path))


def _from_run(workdir: Path, overrides: dict[str, str]) -> ConfigDict:
    """A run's own configuration, overridden."""
    config = _read_run(workdir)
    for key, text in overrides.items():
        config_lib.override(config, key, text)
    config_lib.validate(config)
    return config


def _check_same_run(workdir: Path, config: ConfigDict) -> None:
    """Refuses to evaluate a run as what it is not."""
    conflicts = config_lib.resume_conflicts(_read_run(workdir), config)
    if conflicts:
        text = ", ".join(
            f"{key} = {config_lib.as_text(old)}, not {config_lib.as_text(new)}"
            for key, old, new in conflicts
        )
        raise UserError(f"{workdir}: the run was trained with {text} (--config is not needed)")


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


def _parse_seeds(
    flags: dict[str, str], overrides: dict[str, str], mode: str
) -> tuple[tuple[int, Path], ...]:
    text = flags["--seeds"]
    if mode != "train":
        raise UserError(f"--seeds {text}: expected only with --mode train")
    for other in ("--config.seed", "--profile", *_PROCESS_FLAGS):
        if other in flags or other.removeprefix("--config.") in overrides:
            raise UserError(f"--seeds {text} and {other} exclude each other, expected one of them")
    seeds = text.split(",")
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {text}: expected each seed once")
    found = []
    for seed in seeds:
        config, workdir = _from_recipe(flags["--config"], {**overrides, "seed": seed})
        if "--workdir" in flags:
            workdir = Path(os.path.expanduser(flags["--workdir"])) / f"seed-{config.seed}"
        found.append((config.seed, workdir))
    return tuple(found)


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


def execute(command: Command) -> dict[str, Any]:
    """Trains or evaluates, and returns the run's result."""
    if command.config.deterministic:
        request_determinism()
    # Only here: JAX takes seconds to import, and a wrong flag should be told at once.
    from collab_jax.runs import evaluate, loop, processes

    _keep_programs()
    if command.processes is not None:
        processes.start(*command.processes)
    elif command.mode == "train" and processes.under_slurm():
        processes.start()

    # Orbax logs pages of tracebacks for an error that it also raises and that is told in one line.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if command.mode == "eval":
        return evaluate.run(command.workdir, checkpoint=command.checkpoint, config=command.config)
    if command.mode == "export":
        from collab_jax.runs import export

        return export.run(command.workdir, checkpoint=command.checkpoint)
    if command.seeds:
        from collab_jax.runs import seeds

        configs = [command.config.copy_and_resolve_references() for _ in command.seeds]
        for config, (seed, _) in zip(configs, command.seeds, strict=True):
            config.seed = seed
        workdirs = [workdir for _, workdir in command.seeds]
        return {"seeds": seeds.run(configs, workdirs, resume=command.resume)}
    return loop.run(command.config, command.workdir, resume=command.resume, profile=command.profile)


def _keep_programs() -> None:
    """Keeps compiled programs from one run to the next, unless JAX was told where or not to."""
    import jax

    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(folder / "collab_jax" / "programs"))
        jax.config.update("jax_compilation_cache_max_size", _PROGRAM_BYTES)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text.isprintable() else ascii(text)[1:-1]


@contextmanager
def _plain_messages() -> Iterator[None]:
    """Warnings in one line, without the place in the code that gave them."""

    # After a write that failed, TensorStore's threads tell Orbax's loop of every other array, and
    # print a traceback each as the loop is closed: by either hook, some of them late.
    def report(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not _from_closed_loop(error):
            hook(kind, error, trace)

    def report_unraisable(unraisable: Any) -> None:
        if not _from_closed_loop(unraisable.exc_value):
            unraisable_hook(unraisable)

    before, hook, unraisable_hook = warnings.formatwarning, sys.excepthook, sys.unraisablehook
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    sys.excepthook, sys.unraisablehook = report, report_unraisable
    try:
        yield
    except BaseException:
        warnings.formatwarning = before
        raise
    warnings.formatwarning, sys.excepthook, sys.unraisablehook = before, hook, unraisable_hook


def _from_closed_loop(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def _summary(command: Command, result: dict[str, Any]) -> str:
    if command.mode == "export":
        return (
            f"{command.workdir / f'exported-{command.checkpoint}'}: checkpoint "
            f"{command.checkpoint} (step {result['step']}), {result['parameters']:,} parameters, "
            f"for {' and '.join(result['platforms'])}"
        )
    return (
        f"{command.workdir}, checkpoint {command.checkpoint} (step {result['step']}): "
        f"test error {result['top1_error']:.2f}% (top-1), {result['top5_error']:.2f}% (top-5), "
        f"loss {result['loss']:.4f} on {result['images']} images"
    )


def _tell_on_stderr() -> None:
    """Notes of work that takes long, and warnings, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("collab_jax")
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
    logger.propagate = False

    def show(message: Warning | str, *_: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code.

    0 at the end of the work, 1 for a run that failed, 2 for the user's mistakes, 75 for a run that
    a signal stopped and that the same command goes on with.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # `python -m` leaves the path of __main__.py, the other ways a program's own name.
    program = Path(sys.argv[0]).name.replace("__main__.py", "python -m collab_jax")
    if not arguments:
        print(usage(program), end="", file=sys.stderr)
        return 2
    if "--help" in arguments or "-h" in arguments:
        print(usage(program), end="")
        return 0
    if "--keys" in arguments:
        print(config_lib.describe(), end="")
        return 0
    _tell_on_stderr()
    try:
        command = parse(arguments)
        for warning in command.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        with stop_at_once(), _plain_messages():
            result = execute(command)
        if command.mode != "train":
            print(_summary(command, result))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return EXIT_CODE
    except (RunError, OSError) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return _failed(1)
    except UserError as error:
        if isinstance(error, UsageError):
            print(usage(program), file=sys.stderr)
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return _failed(2)
    return 0


def _failed(code: int) -> int:
    """The code, unless this is one of several processes, which then ends without the others."""
    if "collab_jax.runs.processes" in sys.modules:
        from collab_jax.runs import processes

        processes.leave(code)
    return code
