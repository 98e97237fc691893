"""The program: a command line, read and carried out."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collab_jax import config as config_lib
from collab_jax._version import __version__
from collab_jax.cli.command import Command, UsageError, one_line, parse, usage
from collab_jax.errors import RunError, UserError
from collab_jax.runs.environment import (
    check_devices,
    check_switches,
    leave_out_idle_plugins,
    request_determinism,
    settled,
)
from collab_jax.runs.programs import heal
from collab_jax.runs.signals import EXIT_CODE, Interrupted
from collab_jax.runs.streams import tell

__all__ = [
    "Command",
    "UsageError",
    "execute",
    "main",
    "parse",
    "usage",
]

_PROGRAM_BYTES = 4 << 30


def execute(command: Command) -> dict[str, Any]:
    """Does what the mode says, and returns the run's result; predictions are printed."""
    if command.config.deterministic:
        request_determinism()
    leave_out_idle_plugins()
    check_switches()
    # Only here: JAX takes seconds to import, and a wrong flag should be told at once.
    from collab_jax.runs import processes

    _keep_programs()
    if command.processes is not None:
        processes.start(*command.processes)
    elif command.mode == "train" and processes.under_slurm():
        processes.start()

    check_devices()
    with settled():
        return _carry_out(command)


def _carry_out(command: Command) -> dict[str, Any]:
    from collab_jax.runs import evaluate, loop

    # Orbax logs pages of tracebacks for an error that it also raises and that is told in one line.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if command.mode == "eval":
        return evaluate.run(
            command.workdir,
            checkpoint=command.checkpoint,
            config=command.config,
            output=command.output,
        )
    if command.mode == "export":
        from collab_jax.runs import export

        return export.run(command.workdir, checkpoint=command.checkpoint, output=command.output)
    if command.mode == "predict":
        from collab_jax.runs import predict

        for path, name, probability in predict.run(
            command.workdir, command.images, checkpoint=command.checkpoint
        ):
            tell(f"{one_line(path)}\t{one_line(name)}\t{probability:.4f}\n")
        return {}
    return loop.run(command.config, command.workdir, resume=command.resume, profile=command.profile)


def _keep_programs() -> None:
    """Keeps compiled programs from one run to the next, unless JAX was told where or not to."""
    import jax

    settings: Any = jax.config
    home = os.path.expanduser("~/.cache")
    folder = os.environ.get("XDG_CACHE_HOME") or home
    # Without a home directory there is no place to keep them.
    if settings.jax_compilation_cache_dir is None and folder != "~/.cache":
        programs = Path(folder) / "collab_jax" / "programs"
        heal(programs)
        jax.config.update("jax_compilation_cache_dir", str(programs))
        jax.config.update("jax_compilation_cache_max_size", _PROGRAM_BYTES)


@contextmanager
def _plain_messages() -> Iterator[None]:
    """Warnings in one line, without the place in the code that gave them."""

    def show(message: Warning | str, *_: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)

    before = sys.excepthook, sys.unraisablehook, warnings.showwarning
    warnings.showwarning = show
    _leave_out_closed_loops()
    try:
        yield
    except BaseException:
        # Some come as late as the program's end.
        atexit.register(_leave_out_closed_loops)
        raise
    finally:
        sys.excepthook, sys.unraisablehook, warnings.showwarning = before


def _leave_out_closed_loops() -> None:
    """Leaves out what TensorStore's threads print after a write that failed.

    They tell Orbax's loop of every other array, and print a traceback each as the loop is closed:
    by either hook.
    """
    hook, unraisable_hook = sys.excepthook, sys.unraisablehook

    def report(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not _from_closed_loop(error):
            hook(kind, error, trace)

    def report_unraisable(unraisable: Any) -> None:
        if not _from_closed_loop(unraisable.exc_value):
            unraisable_hook(unraisable)

    sys.excepthook, sys.unraisablehook = report, report_unraisable


def _from_closed_loop(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def _summary(command: Command, result: dict[str, Any]) -> str:
    if command.mode == "export":
        return (
            f"{(command.output or command.workdir) / f'exported-{command.checkpoint}'}: "
            f"checkpoint {command.checkpoint} (step {result['step']}), "
            f"{result['parameters']:,} parameters, for {' and '.join(result['platforms'])}"
        )
    return (
        f"{command.workdir}, checkpoint {command.checkpoint} (step {result['step']}): "
        f"test error {result['top1_error']:.2f}% (top-1), {result['top5_error']:.2f}% (top-5), "
        f"loss {result['loss']:.4f} on {result['images']} images of {result['data']}"
    )


def _tell_on_stderr() -> None:
    """Notes of work that takes long, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("collab_jax")
    logger.setLevel(logging.INFO)
    logger.handlers = [handler]
    logger.propagate = False


def _information(arguments: Sequence[str], program: str) -> str | None:
    """What a command line asks to be told in place of any work, None where it asks for work."""
    if "--help" in arguments or "-h" in arguments:
        return usage(program)
    if "--version" in arguments:
        return f"collab_jax {__version__}\n"
    if "--keys" in arguments:
        word = [*arguments, "--"][arguments.index("--keys") + 1]
        return config_lib.list_keys("" if word.startswith("--") else word)
    return None


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
    try:
        if (text := _information(arguments, program)) is not None:
            tell(text)
            return 0
        _tell_on_stderr()
        command = parse(arguments)
        for warning in command.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        with _plain_messages():
            result = execute(command)
        if command.mode in ("eval", "export"):
            tell(_summary(command, result) + "\n")
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return EXIT_CODE
    except (RunError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return _failed(1)
    except UserError as error:
        if isinstance(error, UsageError):
            print(usage(program), file=sys.stderr)
        print(f"error: {one_line(error)}", file=sys.stderr)
        return _failed(2)
    return 0


def _failed(code: int) -> int:
    """The code, unless this is one of several processes, which then ends without the others."""
    if "collab_jax.runs.processes" in sys.modules:
        from collab_jax.runs import processes

        processes.leave(code)
    return code
