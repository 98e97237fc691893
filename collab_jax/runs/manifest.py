"""The SHA-256 of each of a checkpoint's files: what says that it is whole and sound."""

import hashlib
import json
import os
from pathlib import Path

from collab_jax.errors import RunError
from collab_jax.files.atomic import write_json

__all__ = ["MANIFEST", "is_sound", "write_manifest"]

MANIFEST = "manifest.json"
"""Name of the file with the SHA-256 sums of a checkpoint's other files."""


def is_sound(path: Path) -> bool:
    """Whether a checkpoint's files are those that its manifest lists, byte for byte.

    Raises:
      RunError: if this process may not read them, which is no damage.
    """
    try:
        expected = json.loads((path / MANIFEST).read_text())
        return expected == _digests(path)
    except PermissionError as error:
        raise RunError(
            f"{error.filename}: cannot be read ({error.strerror}); nothing is changed"
        ) from error
    except (OSError, ValueError, RecursionError):
        return False


def write_manifest(path: Path) -> None:
    """Adds the manifest to a complete checkpoint, all at once."""
    digests = _digests(path)
    write_json(path / MANIFEST, {name: digests[name] for name in sorted(digests)})


def _digests(path: Path) -> dict[str, str]:
    def tell(error: OSError) -> None:
        raise error

    digests = {}
    # Not `rglob`, which passes over a folder that may not be read.
    for folder, _, names in os.walk(path, onerror=tell):
        for name in names:
            file = Path(folder, name)
            if name != MANIFEST and not name.startswith(f".{MANIFEST}.new-"):
                with file.open("rb") as stream:
                    digests[str(file.relative_to(path))] = hashlib.file_digest(
                        stream, "sha256"
                    ).hexdigest()
    return digests
