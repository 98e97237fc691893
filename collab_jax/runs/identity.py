"""Whose a checkpoint is: the seed, the config and the data that its record names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collab_jax import config as config_lib
from collab_jax._version import __version__
from collab_jax.config import Config
from collab_jax.data import DataInfo
from collab_jax.errors import RunError, UserError
from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps, read_checkpoint

__all__ = ["check_content", "check_record", "check_run_content", "stamp"]


def stamp(config: Config, info: DataInfo) -> dict[str, Any]:
    """What a checkpoint's record says of the run that wrote it."""
    return {
        "data": info.to_json(),
        "seed": config.seed,
        "config": config_lib.identity_hash(config),
        "version": __version__,
    }


def check_record(path: Path, record: Mapping[str, Any], config: Config) -> None:
    """Compares a checkpoint's record with the config of the run that it lies in.

    What a record of an earlier version does not say is not compared.

    Raises:
      RunError: if another seed, or another config, wrote it.
    """
    seed, digest = record.get("seed", config.seed), config_lib.identity_hash(config)
    same_version = record.get("version") == config.version == __version__
    if seed != config.seed:
        written = f"a run of seed {seed}; expected seed {config.seed}, as in its config"
    elif same_version and record.get("config", digest) != digest:
        written = f"a run of another config (hash {record['config']}; expected {digest})"
    else:
        return
    raise RunError(f"{path}: this checkpoint was written by {written}; nothing is changed")


def check_content(name: str, found: str, recorded: str, remedy: str) -> bool:
    """Compares fingerprints of data.

    Args:
      name: `data.name` of what was found.
      found: its fingerprint.
      recorded: the fingerprint that a run recorded, empty where an earlier version wrote it.
      remedy: the rest of the message.

    Returns:
      Whether the run is known to have had the same content.

    Raises:
      UserError: if it had other content.
    """
    if recorded and found != recorded:
        raise UserError(
            f"config.data.name = {name!r}: its content has the fingerprint {found[:12]}, the run "
            f"was trained on {recorded[:12]}; {remedy}"
        )
    return bool(recorded)


def check_run_content(run_dir: Path, name: str, found: str) -> bool:
    """`check_content` with what the newest sound checkpoint of a run recorded, if it has one."""
    directory = checkpoint_dir(run_dir)
    for step in reversed(complete_steps(directory)):
        try:
            _, record = read_checkpoint(directory, step, lambda record: {})
        except RunError:
            continue
        remedy = "expected the same images and labels (from any path), or another --workdir"
        return check_content(name, found, record.get("data", {}).get("fingerprint", ""), remedy)
    return False
