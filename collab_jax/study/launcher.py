"""Where a study runs: submitit, with processes of this machine or jobs of SLURM."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from collab_jax.errors import RunError, UserError
from collab_jax.study.child import CommandJob

__all__ = ["Engine", "Job", "LocalProcess", "parse_slurm"]

_YEAR_IN_MINUTES = 365 * 24 * 60


class Job(Protocol):
    """A command that runs, or waits to run, somewhere."""

    @property
    def id(self) -> str:
        """Of the process or the cluster's job."""
        ...

    def alive(self) -> bool:
        """Whether it has not ended."""
        ...

    def stop(self) -> None:
        """Asks it to save and end."""
        ...


class LocalProcess:
    """A job of this machine that an earlier process of the study started."""

    def __init__(self, number: int) -> None:
        self._number = number

    @property
    def id(self) -> str:
        return str(self._number)

    def alive(self) -> bool:
        try:
            os.kill(self._number, 0)
            command = Path(f"/proc/{self._number}/cmdline")
            # The system may have given the number to another program since.
            return not command.exists() or b"submitit" in command.read_bytes()
        except OSError:
            return False

    def stop(self) -> None:
        if self.alive():
            os.kill(self._number, signal.SIGTERM)


class _Submitted:
    """A submitit job."""

    def __init__(self, job: Any, *, local: bool) -> None:
        self._job, self._local = job, local

    @property
    def id(self) -> str:
        return str(self._job.job_id)

    def alive(self) -> bool:
        return not self._job.done()

    def stop(self) -> None:
        if self._local:
            LocalProcess(int(self._job.job_id)).stop()
        else:
            self._job.cancel(check=False)


def _import_submitit() -> Any:
    # At import it configures logging for the whole program, and so closes others' handlers.
    before = os.environ.get("SUBMITIT_LOG_LEVEL")
    os.environ["SUBMITIT_LOG_LEVEL"] = "NOCONFIG"
    try:
        import submitit
    except ImportError:
        raise UserError(
            "submitit is not installed; expected the extra `study`: pip install 'collab-jax[study]'"
        ) from None
    finally:
        os.environ.pop("SUBMITIT_LOG_LEVEL")
        if before is not None:
            os.environ["SUBMITIT_LOG_LEVEL"] = before
    return submitit


class Engine:
    """Starts commands by submitit.

    Args:
      folder: for submitit's own files.
      slurm: parameters of submitit's SLURM executor such as `slurm_partition`; None runs the
        commands as processes of this machine.

    Raises:
      UserError: if submitit is missing, SLURM is not there or a parameter is unknown.
    """

    def __init__(self, folder: Path, slurm: Mapping[str, Any] | None = None) -> None:
        submitit = _import_submitit()
        self.cluster = "local" if slurm is None else "slurm"
        self._folder, self._submitit = folder, submitit
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
            if slurm is None:
                self._executor.update_parameters(timeout_min=_YEAR_IN_MINUTES)
            else:
                self._executor.update_parameters(**slurm)
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise UserError(f"--slurm: {' '.join(str(error).split())}") from None

    def submit(self, job: CommandJob, name: str) -> Job:
        """Starts a command, or queues it.

        Raises:
          RunError: if the cluster does not take it.
        """
        if self.cluster == "local":
            # submitit hides the GPUs of a local job that asks for none by its own means.
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            job.environment = {"CUDA_VISIBLE_DEVICES": visible, **job.environment}
        else:
            self._executor.update_parameters(name=name)
        try:
            with _no_keyboard_interrupt():
                submitted = self._executor.submit(job)
        except OSError:
            raise
        except Exception as error:
            raise RunError(f"{name}: not submitted: {' '.join(str(error).split())}") from error
        return _Submitted(submitted, local=self.cluster == "local")

    def find(self, record: Mapping[str, Any]) -> Job | None:
        """The job of an earlier process of the study, if it is alive and can be seen from here."""
        number = str(record.get("job", ""))
        if record.get("cluster") == "local":
            if record.get("host") != socket.gethostname() or not number.isdigit():
                return None
            job: Job = LocalProcess(int(number))
            return job if job.alive() else None
        if record.get("cluster") == "slurm" and self.cluster == "slurm" and number:
            found = _Submitted(
                self._submitit.SlurmJob(folder=self._folder, job_id=number, tasks=[0]), local=False
            )
            return found if found.alive() else None
        return None


@contextmanager
def _no_keyboard_interrupt() -> Iterator[None]:
    """Processes started meanwhile leave Ctrl-C to the study, which passes one signal on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def parse_slurm(options: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` words as parameters of submitit's executor; whole numbers as such.

    Raises:
      UserError: if a word is not of this form.
    """
    parameters: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"--slurm {option}: expected KEY=VALUE such as slurm_partition=gpu")
        parameters[key] = int(value) if value.isdigit() else value
    return parameters
