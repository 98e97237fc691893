"""`python -m collab_jax.benchmark gpu OUT`: all parts in turn, whatever is done already kept."""

import argparse
import signal
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from collab_jax.benchmark.gpu import evidence
from collab_jax.benchmark.gpu.cells import BEST, FULL, TINY, Sizes, cells_of, label
from collab_jax.benchmark.gpu.children import Deadline, environment_for, replies, stop
from collab_jax.benchmark.gpu.flags import PARTS
from collab_jax.benchmark.gpu.page import PAGE, page
from collab_jax.benchmark.gpu.records import RECORDS, Records
from collab_jax.errors import RunError, UserError
from collab_jax.files.atomic import write_bytes
from collab_jax.files.locks import FileLock
from collab_jax.runs.signals import EXIT_CODE

__all__ = ["run"]

_LOCK = ".lock"
_SAVING = 60.0


def run(options: argparse.Namespace, command: str) -> int:
    """Measures what is missing; returns the exit code.

    Raises:
      UserError: for a mistake in the flags, the folder or the data, or without a GPU.
      RunError: if the first worker does not start.
    """
    sizes, parts = _sizes(options), _parts(options)
    data = _data(options.data)
    out = Path(options.out).expanduser().absolute()
    with _held(out):
        records = Records(out)
        work = _Work(out, records, Deadline(options.minutes), command)
        try:
            with _sigterm_as_interrupt():
                work.check_machine(dry=sizes.dry)
                for part in parts:
                    if part == "study":
                        work.study(sizes, data)
                    else:
                        work.cells(cells_of(part, sizes))
        except KeyboardInterrupt:
            work.write_page()
            print(f"stopped; what is finished is kept, the same command goes on: {out}")
            return EXIT_CODE
        work.write_page()
    print(f"{out / PAGE}: {sum('figures' in record for record in records)} cells measured")
    return 1 if work.failed else 0


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = TINY if options.tiny else FULL
    chosen = {
        name: tuple(values)
        for name in ("models", "methods", "precisions")
        if (values := getattr(options, name))
    }
    if options.epochs is not None:
        if options.epochs < 1:
            raise UserError(f"--epochs {options.epochs}: expected at least 1")
        chosen["epochs"] = options.epochs
    if options.minutes is not None and not options.minutes > 0:
        raise UserError(f"--minutes {options.minutes:g}: expected more than 0")
    return replace(sizes, **chosen)


def _parts(options: argparse.Namespace) -> list[str]:
    parts = [p for p in PARTS if p in (options.only or PARTS) and p not in options.skip]
    if not parts:
        raise UserError(f"--skip {' '.join(options.skip)}: leaves no part to measure")
    return parts


def _data(path: Path | None) -> Path | None:
    if path is None:
        return None
    path = path.expanduser().absolute()
    wanted = {f"{name}.npy" for name in ("x_train", "y_train", "x_test", "y_test")}
    try:
        with zipfile.ZipFile(path) as archive:
            found = set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        raise UserError(f"--data {path}: expected an .npz file") from None
    if missing := sorted(wanted - found):
        raise UserError(f"--data {path}: expected the arrays {', '.join(missing)} in it")
    return path


@contextmanager
def _held(out: Path) -> Iterator[None]:
    if out.exists() and not out.is_dir():
        raise UserError(f"OUT {out}: is a file, expected a folder")
    found = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if found and not {_LOCK, RECORDS} & set(found):
        raise UserError(
            f"OUT {out}: holds {', '.join(found[:3])} and no {RECORDS}; expected a new folder or "
            "this program's"
        )
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / _LOCK) as lock:
        if not lock.try_acquire():
            raise UserError(f"OUT {out}: in use by {lock.holder()}")
        lock.sign()
        yield


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Work:
    """What is left to do in a folder."""

    def __init__(self, out: Path, records: Records, deadline: Deadline, command: str) -> None:
        self._out, self._records, self._deadline = out, records, deadline
        self._command = command
        self._machine: dict[str, Any] = {}
        self._notes: list[str] = []
        self.failed = False

    def check_machine(self, *, dry: bool) -> None:
        """Asks a worker for the device, and refuses one that the figures would not be of."""
        for reply in self._replies([]):
            if "refused" in reply:
                raise UserError(reply["refused"])
            if "machine" not in reply:
                raise RunError(f"the first worker did not start: {reply.get('error')}")
            self._machine = reply["machine"]
        if not self._machine:
            raise RunError("the first worker did not start within --minutes")
        if self._machine["platform"] != "gpu" and not dry:
            raise UserError(
                f"JAX finds no GPU but {self._machine['device']}; expected an NVIDIA GPU with its "
                "driver and jax[cuda12] or jax[cuda13], or --tiny for a dry run"
            )
        self._records.check_machine(self._machine)
        print(f"{self._machine['device']}, jax {self._machine['jax']}", flush=True)

    def cells(self, cells: Sequence[dict[str, Any]]) -> None:
        """Measures the cells that have no figures; those of parity in one process."""
        left = [cell for cell in cells if self._records.done(cell) is None]
        while left and not self._deadline.passed:
            batch = left if left[0]["part"] == "parity" else left[:1]
            count = 0
            for reply in self._replies(batch):
                if "machine" in reply:
                    continue
                self._keep(batch[count], reply)
                count += 1
            left = left[count:]
            if not count:
                break
        if left:
            self._note(f"{left[0]['part']}: {len(left)} cells not measured, the time was up")

    def study(self, sizes: Sizes, data: Path | None) -> None:
        """Runs the study until it is done or the time is up."""
        if data is None and not sizes.dry:
            self._note("study: not run, it takes --data FILE.npz")
            return
        (compute,) = cells_of("study", sizes)
        self.cells([compute])
        counted = self._records.done(compute)
        if counted is None or self._deadline.passed:
            self._note("study: not run, the time was up or its FLOPs were not counted")
            return
        if data is None:
            from collab_jax.benchmark.gpu.repeat import random_images

            data = self._out / "random.npz"
            random_images(data, sizes.images, sizes.image_size)
        text = evidence.study_file(sizes, data, counted["figures"])
        (self._out / f"{evidence.STUDY}.py").write_text(text)
        began = time.monotonic()
        log = self._log("study")
        environment = environment_for({}, self._out / "programs")
        process = evidence.start_study(self._out, log, environment)
        timer = self._deadline.end(process, early=_SAVING)
        try:
            code = process.wait()
        finally:
            if timer is not None:
                timer.cancel()
            stop(process)
        cell = {"part": "study", "epochs": sizes.epochs, "best": BEST}
        rows = evidence.results(self._out)
        reply: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1)}
        if rows:
            reply["figures"] = {"rows": rows, "whole": code == 0}
        if code == EXIT_CODE:
            self._note(f"study: {len(rows)} runs done as the time was up; the command goes on")
        elif code or not rows:
            lines = log.read_text(errors="replace").strip().splitlines()
            self._note(f"study: failed: {lines[-1] if lines else f'exit code {code}'}")
            self.failed = True
        if rows:
            self._keep(cell, reply)

    def write_page(self) -> None:
        text = page(list(self._records), self._notes, self._command)
        write_bytes(self._out / PAGE, text.encode())

    def _replies(self, cells: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        first: Mapping[str, Any] = cells[0] if cells else {}
        return replies(
            cells,
            log=self._log(first.get("part", "machine")),
            environment=environment_for(first, self._out / "programs"),
            deadline=self._deadline,
        )

    def _log(self, part: str) -> Path:
        (self._out / "logs").mkdir(exist_ok=True)
        return self._out / "logs" / f"{part}.log"

    def _keep(self, cell: dict[str, Any], reply: dict[str, Any]) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        self._records.add({"cell": cell, "machine": self._machine, "when": now, **reply})
        self.failed |= "error" in reply
        told = reply.get("error") or reply.get("skipped") or "done"
        print(f"{label(cell)}: {told} ({reply.get('seconds', 0):g} s)", flush=True)
        self.write_page()

    def _note(self, text: str) -> None:
        self._notes.append(text)
        print(text, file=sys.stderr, flush=True)
