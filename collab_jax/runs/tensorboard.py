"""TensorBoard's events of a run, in one file however often the run is resumed."""

import secrets
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["EventFile", "read_events"]


@contextmanager
def _without_torch() -> Iterator[None]:
    """Keeps tensorboardX from importing PyTorch where it is installed: seconds for nothing."""
    absent = "torch" not in sys.modules
    modules: Any = sys.modules
    if absent:
        modules["torch"] = None
    try:
        yield
    finally:
        if absent:
            del modules["torch"]


with _without_torch():
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2, summary_pb2
    from tensorboardX.record_writer import masked_crc32c

# Made from descriptors at import, which type checkers do not see.
_event_proto: Any = event_pb2
_summary_proto: Any = summary_pb2


# Other people's files, and other programs' events, may lie beside ours.
_OURS = ".collab_jax"


class EventFile:
    """Writes scalars as events, without the thread and queue of a SummaryWriter.

    After an error of the disk that thread is gone, and the run would wait for it for ever. Of the
    folder's files, those whose names end in `.collab_jax` are taken over and removed, no others.

    Args:
      folder: of the events; made if it is not there.
      step: the step that the run goes on from; events of later ones are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(exist_ok=True)
        old = sorted(path for path in folder.glob(f"events.out.tfevents.*{_OURS}") if _is_own(path))
        # By step and tags, as a process killed below leaves events in two files.
        kept = {
            (event.step, *(value.tag for value in event.summary.value)): event
            for path in old
            for event in read_events(path)
            if event.HasField("summary") and event.step <= step
        }
        suffix = f".{secrets.token_hex(6)}{_OURS}"
        self._writer = EventsWriter(str(folder / "events"), suffix)
        # TensorBoard then forgets what the old files say, also where it has read them already.
        start = _event_proto.SessionLog(status=_event_proto.SessionLog.START)
        self._write(_event_proto.Event(step=0, wall_time=time.time(), session_log=start))
        for event in kept.values():
            self._write(event)
        self._writer.flush()
        for path in old:
            path.unlink(missing_ok=True)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes scalars by tag.

        Raises:
          OSError: if the disk does not take them.
        """
        summary = _summary_proto.Summary(
            value=[
                _summary_proto.Summary.Value(tag=tag, simple_value=value)
                for tag, value in values.items()
            ]
        )
        self._write(_event_proto.Event(step=step, wall_time=time.time(), summary=summary))
        self._writer.flush()

    def _write(self, event: Any) -> None:
        self._writer.write_event(event)

    def close(self) -> None:
        # All was flushed, or its error raised, when it was written.
        with suppress(OSError):
            self._writer.close()


def _is_own(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def read_events(path: Path) -> Iterator[Any]:
    """The events of a file, up to the first that is torn or damaged.

    A record is its length (8 bytes), the length's checksum (4), its bytes and their checksum (4).
    """
    content = path.read_bytes()
    at = 0
    while at + 12 <= len(content):
        header = content[at : at + 8]
        (length,) = struct.unpack("<Q", header)
        record = content[at + 12 : at + 12 + length]
        sums = content[at + 8 : at + 12] + content[at + 12 + length : at + 16 + length]
        if sums != struct.pack("<II", masked_crc32c(header), masked_crc32c(record)):
            return
        yield _event_proto.Event.FromString(record)
        at += 16 + length
