"""A trained network as StableHLO, to be called by a program that has jax and numpy alone."""

import dataclasses
import hashlib
import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from jax import export as jax_export
from jaxtyping import Array, Float

from collab_jax._version import __version__
from collab_jax.errors import RunError, UserError
from collab_jax.files.atomic import new_folder, read_json, write_json
from collab_jax.runs import load_model
from collab_jax.runs.directory import written_or_told
from collab_jax.runs.load import Restored, load_run
from collab_jax.training.state import count_parameters

__all__ = ["PLATFORMS", "run"]

PLATFORMS = ("cpu", "cuda")
"""What the one program is lowered for."""

_HOW_TO_CALL = """\
import load_model
predict = load_model.load(".")
logits = predict(images)
"""
_DIFFERENT = 0.02


def run(
    workdir: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    output: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Exports a checkpoint of a run for inference elsewhere.

    Writes `exported-CHECKPOINT/` in the run directory:

    - `model.stablehlo`: one program for all `PLATFORMS` and any batch size, normalisation inside;
      `model.jax_export` is the same with its signature, for `jax.export.deserialize`.
    - `parameters.npz`: its first argument, every parameter and running statistic by name.
    - `example.npz`: four images and their logits.
    - `load_model.py`: `collab_jax.runs.load_model`, which loads it all with jax and numpy alone.
    - `model.json`: classes, shapes, normalisation, platforms, versions, SHA-256 of the files.

    An export that was there before is replaced once the new one is written, read back and gives
    the network's logits. Where the run directory takes no files, it warns and keeps none.

    Args:
      workdir: the run directory.
      checkpoint: best, last or a step.
      output: folder to write into; None for the run directory.

    Returns:
      The content of `model.json`.

    Raises:
      UserError: if the directory holds no run, or no such checkpoint, or the folder holds what is
        not an export's.
      RunError: if the checkpoint is damaged, or the program does not give the network's logits.
      OSError: if `output` takes no files.
    """
    run_dir = Path(workdir)
    restored = load_run(run_dir, checkpoint)
    folder = Path(output or run_dir) / f"exported-{checkpoint}"
    _check_own(folder)
    description: dict[str, Any] = {}
    with written_or_told(folder, asked_for=output is not None), new_folder(folder) as temporary:
        description = _write(temporary, restored, checkpoint)
        if folder.exists():
            shutil.rmtree(folder)
    if not description:
        with TemporaryDirectory() as temporary:
            description = _write(Path(temporary), restored, checkpoint)
    return description


def _check_own(folder: Path) -> None:
    """Refuses to replace what an export did not write."""
    listed = (read_json(folder / "model.json") or {}).get("sha256")
    own = {"model.json", "__pycache__", *(listed if isinstance(listed, dict) else ())}
    others = sorted(path.name for path in folder.glob("*") if path.name not in own)
    if folder.is_symlink() or others:
        what = "is a symbolic link" if folder.is_symlink() else f"holds {', '.join(others[:3])}"
        raise UserError(
            f"{folder}: {what}, which no export wrote and this one would remove; expected no such "
            "folder, or an export's"
        )


def _write(folder: Path, restored: Restored, checkpoint: str) -> dict[str, Any]:
    info = restored.info
    paths, tree = jax.tree_util.tree_flatten_with_path(restored.variables)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    parameters: dict[str, Any] = {
        name: np.asarray(leaf) for name, (_, leaf) in zip(names, paths, strict=True)
    }

    def predict(parameters: dict[str, Array], images: Array) -> Float[Array, "batch classes"]:
        variables = jax.tree.unflatten(tree, [parameters[name] for name in names])
        logits: Any = restored.model.apply(variables, info.normalise(images), train=False)
        return logits

    # As constants the parameters would be folded, tens of seconds and gigabytes of the compiler's
    # for 130 MB of them, and would stand in the program of every batch size again.
    shapes = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in parameters.items()
    }
    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *info.image_shape), np.uint8)
    program = jax_export.export(jax.jit(predict), platforms=PLATFORMS)(shapes, images)
    (folder / "model.stablehlo").write_bytes(program.mlir_module_serialized)
    (folder / "model.jax_export").write_bytes(program.serialize())
    np.savez(folder / "parameters.npz", **parameters)
    shutil.copyfile(load_model.__file__, folder / "load_model.py")
    example = np.random.default_rng(0).integers(0, 256, (4, *info.image_shape), np.uint8)
    logits = np.asarray(jax.jit(predict)(parameters, example))
    np.savez(folder / "example.npz", images=example, logits=logits)
    description = {
        "how_to_call": _HOW_TO_CALL.splitlines(),
        "images": f"uint8 (batch, {', '.join(map(str, info.image_shape))}), any batch of 1 or more",
        "logits": f"float32 (batch, {info.num_classes})",
        "image_shape": info.image_shape,
        "class_names": info.class_names,
        "normalisation": {
            "where": "inside the program: (images / 255 - mean) / std for each channel",
            "mean": info.mean,
            "std": info.std,
        },
        "platforms": program.platforms,
        "calling_convention_version": program.calling_convention_version,
        "model": dataclasses.asdict(restored.config.model),
        "method": restored.config.method,
        "data": restored.config.data.name,
        "checkpoint": checkpoint,
        "step": restored.step,
        "parameters": count_parameters(restored.variables["params"]),
        "sha256": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
        "versions": {
            "collab_jax": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "jaxlib", "numpy")},
        },
    }
    write_json(folder / "model.json", description)
    _compare(np.asarray(load_model.load(folder)(example)), logits)
    return json.loads((folder / "model.json").read_text())


def _compare(found: np.ndarray, expected: np.ndarray) -> None:
    # On a GPU, and in bfloat16, two compilations of one network may round apart; a parameter in
    # another's place does far more.
    difference = float(np.abs(found - expected).max())
    if not difference <= _DIFFERENT * float(np.abs(expected).max()):
        raise RunError(
            f"model.stablehlo: its logits differ from the network's by {difference:.3g}, expected "
            "rounding alone; nothing is exported"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
