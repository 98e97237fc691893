"""Calls an exported network; needs jax and numpy alone, and stands as load_model.py beside it."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

__all__ = ["load"]


def load(folder: str | os.PathLike[str]) -> Callable[[Any], jax.Array]:
    """Loads an exported network.

    Args:
      folder: with `model.json` and the files that it lists.

    Returns:
      A function of uint8 images (B, H, W, C), not normalised, that returns float32 logits (B, m).
      It is compiled for each B that it meets, and may be part of other jitted functions.

    Raises:
      ValueError: if a file is not the one that `model.json` describes, or the export was made by
        a newer jax.
    """
    folder = Path(folder)
    description = json.loads((folder / "model.json").read_text())
    for name, expected in description["sha256"].items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise ValueError(f"{folder / name}: differs from its SHA-256 in model.json")
    with np.load(folder / "parameters.npz", allow_pickle=False) as arrays:
        parameters = jax.device_put(dict(arrays))
    shape = tuple(description["image_shape"])
    try:
        newest = export.maximum_supported_calling_convention_version
        if description["calling_convention_version"] > newest:
            raise ValueError(f"calling convention above {newest}")
        call = jax.jit(_program(folder, description, parameters, shape).call)
        call.lower(parameters, jax.ShapeDtypeStruct((1, *shape), np.uint8))
    except Exception as error:
        written = description.get("versions", {}).get("jax", "an unknown version")
        raise ValueError(
            f"{folder}: an export by jax {written} that jax {jax.__version__} does not load; "
            f"expected jax {written} or later (pip install 'jax>={written}')"
        ) from error

    def predict(images: Any) -> jax.Array:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise ValueError(
                f"images: {images.dtype} {images.shape} given, expected uint8 (B, "
                f"{', '.join(map(str, shape))}), not normalised"
            )
        return call(parameters, images)

    return predict


def _program(
    folder: Path, description: dict[str, Any], parameters: dict[str, Any], shape: tuple[int, ...]
) -> export.Exported:
    """What `export.deserialize` makes of model.jax_export, which takes flatbuffers, a package more.

    All but the StableHLO is taken from a function of the same signature.
    """

    def same_signature(parameters: Any, images: Any) -> jax.Array:
        return jnp.zeros((images.shape[0], len(description["class_names"])), jnp.float32)

    (batch,) = export.symbolic_shape("batch")
    program = export.export(jax.jit(same_signature), platforms=description["platforms"])(
        jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), parameters),
        jax.ShapeDtypeStruct((batch, *shape), np.uint8),
    )
    return dataclasses.replace(
        program,
        mlir_module_serialized=(folder / "model.stablehlo").read_bytes(),
        calling_convention_version=description["calling_convention_version"],
        module_kept_var_idx=tuple(range(len(parameters) + 1)),
    )


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    with np.load(here / "example.npz", allow_pickle=False) as example:
        difference = np.abs(np.asarray(load(here)(example["images"])) - example["logits"]).max()
        print(f"largest difference on example.npz: {difference:.3g}")
