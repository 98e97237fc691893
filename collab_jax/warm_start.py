"""A start from another run's weights, or from a PyTorch model's."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from collab_jax.errors import UserError
from collab_jax.experiment import DataInfo
from collab_jax.models import from_torch
from collab_jax.restore import load
from collab_jax.train_state import TrainState

__all__ = ["warm_start"]


def warm_start(state: TrainState, config: ConfigDict, info: DataInfo) -> TrainState:
    """Replaces the initial parameters and statistics by those of `config.init_from`.

    A last classifier layer of another number of classes is left as it was initialised.

    Args:
      state: before the first step.
      config: its `init_from` is a run directory (its best checkpoint is used), or a PyTorch state
        dict: .npz, or .pt or .pth where PyTorch is installed.
      info: of the data set.

    Returns:
      The state to start from.

    Raises:
      UserError: if the source cannot be read or its shapes are not the model's.
    """
    source = Path(config.init_from)
    if source.is_dir():
        _, variables = load(source)
    elif source.is_file():
        try:
            _, variables = from_torch(config.model.name, _read_state_dict(source))
        except ValueError as error:
            raise UserError(f"init_from {source}: {error}") from error
    else:
        raise UserError(f"init_from {source}: not found; expected a run directory or a file")
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    last = variables["params"].get("classifier", {}).get("fc3")
    if last is not None and last["bias"].shape != (info.num_classes,):
        variables["params"]["classifier"]["fc3"] = state.params["classifier"]["fc3"]
    wanted, given = _shapes(fresh), _shapes(variables)
    for path in wanted | given:
        if wanted.get(path) != given.get(path):
            raise UserError(
                f"init_from {source}: {path} has shape {given.get(path)}; expected "
                f"{wanted.get(path)} for the config's model"
            )
    return replace(state, params=variables["params"], batch_stats=variables["batch_stats"])


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    if path.suffix not in (".pt", ".pth"):
        raise UserError(f"init_from {path}: expected a run directory or a .pt, .pth or .npz file")
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"init_from {path}: reading it takes PyTorch (pip install torch); or save the state "
            "dict's arrays with numpy.savez"
        ) from error
    return torch.load(path, map_location="cpu", weights_only=True)
