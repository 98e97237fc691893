"""A short run by the loop that every run has, in deterministic mode, and its bits."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from collab_jax import config as config_lib

__all__ = ["random_images", "short_run"]


def random_images(path: Path, images: int, side: int, classes: int = 10) -> None:
    """Writes an .npz of random images, each of which is brighter by its class."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", images), ("test", max(classes, images // 4))):
        labels = np.arange(count) % classes
        shape = (count, side, side, 3)
        arrays[f"x_{split}"] = (
            rng.integers(0, 128, shape) + labels[:, None, None, None] * 12
        ).astype(np.uint8)
        arrays[f"y_{split}"] = labels.astype(np.int64)
    np.savez(path, **arrays)


def short_run(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Trains, and reads what was saved.

    Args:
      cell: `config`, keys of the run; `images` and `side` of its data.

    Returns:
      The SHA-256 of all arrays of the last checkpoint, of the metrics without times, and the loss.
    """
    from collab_jax.runs import loop
    from collab_jax.runs.metrics_log import read_metrics

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        random_images(root / "random.npz", cell["images"], cell["side"])
        config = config_lib.replace(
            config_lib.Config(),
            {
                **cell["config"],
                "deterministic": True,
                "data.name": str(root / "random.npz"),
                "data.dir": str(root / "data"),
                "log.tensorboard": False,
                "log.progress": False,
            },
        )
        loop.run(config, root / "run")
        digest, arrays = _digest(root / "run")
        lines = read_metrics(root / "run")
    timed = ("images_per_second", "wait_fraction")
    lines = [{k: v for k, v in line.items() if k not in timed} for line in lines]
    metrics = hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()
    loss = next(line["loss"] for line in reversed(lines) if line["split"] == "train")
    return {"sha256": digest, "arrays": arrays, "metrics_sha256": metrics, "loss": loss}


def _digest(run_dir: Path) -> tuple[str, int]:
    import jax
    import orbax.checkpoint as ocp

    from collab_jax.runs.checkpoint import checkpoint_dir, complete_steps

    folder = checkpoint_dir(run_dir).absolute()
    path = folder / str(complete_steps(folder)[-1]) / "state"
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata: Any = checkpointer.metadata(path)
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.item_metadata.tree
        )
        state = checkpointer.restore(path, ocp.args.PyTreeRestore(restore_args=as_numpy))
    digest, leaves = hashlib.sha256(), jax.tree_util.tree_leaves_with_path(state)
    for name, leaf in leaves:
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(name)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest(), len(leaves)
