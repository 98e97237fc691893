"""A start from another run's weights, or from a PyTorch model's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from collab_jax.errors import RunError, UserError
from collab_jax.experiment import DataInfo
from collab_jax.models import from_torch
from collab_jax.restore import load
from collab_jax.train_state import TrainState

__all__ = ["check_shapes", "warm_start"]


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
        try:
            _, variables = load(source)
        except RunError as error:
            # This run's mistake: nothing of it has begun.
            raise UserError(f"init_from {source}: {error}") from error
    elif source.is_file():
        try:
            _, variables = from_torch(config.model.name, _read_state_dict(source))
        except UserError:
            raise
        except (ValueError, TypeError) as error:
            raise UserError(f"init_from {source}: {error}") from error
    else:
        raise UserError(f"init_from {source}: not found; expected a run directory or a file")
    fresh = {"params": state.params, "batch_stats": state.batch_stats}
    last = variables["params"].get("classifier", {}).get("fc3")
    if last is not None and last["bias"].shape != (info.num_classes,):
        variables["params"]["classifier"]["fc3"] = state.params["classifier"]["fc3"]
    check_shapes(f"init_from {source}", variables, fresh)
    return replace(state, params=variables["params"], batch_stats=variables["batch_stats"])


def check_shapes(source: str, given: Any, wanted: Any) -> None:
    """Compares trees of arrays, or of their shapes.

    Raises:
      UserError: with `source`, the first path where they differ, and both shapes there.
    """
    found, expected = _shapes(given), _shapes(wanted)
    for path in expected | found:
        if expected.get(path) != found.get(path):
            raise UserError(
                f"{source}: {path} has shape {found.get(path)}; expected {expected.get(path)} for "
                "the config's model and method"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves
    }


def _read_state_dict(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".npz":
        # Opened here, as NumPy leaves a damaged file open.
        with _reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix not in (".pt", ".pth"):
        raise UserError(f"init_from {path}: expected a run directory or a .pt, .pth or .npz file")
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"init_from {path}: reading it takes PyTorch (pip install torch); or save the state "
            "dict's arrays with numpy.savez"
        ) from error
    with _reading(path):
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state_dict, Mapping):
        raise UserError(
            f"init_from {path}: holds a {type(state_dict).__name__}; expected a state dict"
        )
    return state_dict


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    # zipfile, NumPy and PyTorch raise errors of a dozen kinds on damaged bytes.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"init_from {path}: cannot be read ({reason}); expected arrays without pickled objects"
        ) from error
