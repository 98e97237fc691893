"""A network of the user's own in a run: its selections, and what it must do to be trained."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError
from jaxtyping import Array

from collab_jax.config import Config
from collab_jax.data import DataInfo
from collab_jax.errors import UserError, reason
from collab_jax.isolation import CaptureError, Selection
from collab_jax.models.branches import BRANCH
from collab_jax.objective import Objective

__all__ = ["check_own", "globs", "selected_kernels"]

_COLLECTIONS = {"params", "batch_stats"}
_KEYS = {
    "layers": "model.layers",
    "then": "model.then",
    "split_at": "model.split_at",
    "kernel.layers": "kernel.layers",
}
"""By the argument of the capture or the objective that a key is given as."""


def globs(text: str) -> tuple[str, ...] | None:
    """A selection as a config has it: globs joined by commas; None for an empty one."""
    return tuple(glob.strip() for glob in text.split(",")) if text else None


def selected_kernels(params: Mapping[str, Any], layers: str) -> tuple[Array, ...]:
    """The kernels of the modules that globs select.

    Args:
      params: a network's parameters.
      layers: globs over the paths of modules that have a parameter `kernel`.

    Returns:
      Kernels (..., filters), in the order of the parameters.

    Raises:
      UserError: if they select none.
    """
    found = dict(_kernels(params, ""))
    selection = Selection(globs(layers) or (), "kernel.layers")
    kernels = tuple(kernel for path, kernel in found.items() if selection.matches(path, None))
    if not kernels:
        raise UserError(
            f"config.kernel.layers = {layers!r}: selects no module that has a kernel; there are "
            f"{', '.join(found) or 'none'}"
        )
    return kernels


def _kernels(tree: Mapping[str, Any], path: str) -> Iterator[tuple[str, Array]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _kernels(value, f"{path}/{name}" if path else name)
        elif name == "kernel" and path:
            yield path, value


def check_own(config: Config, model: nn.Module, objective: Objective, info: DataInfo) -> None:
    """Traces the network's passes, and runs none of them.

    Args:
      config: of the run.
      model: the network.
      objective: of the config's method.
      info: of the data set.

    Raises:
      UserError: if a pass fails, the logits are not (B, m), a selection misses, the network has
        state that training would lose, or method out or r_drop has no dropout to tell its
        branches apart.
    """
    name = config.model.name
    images = jax.ShapeDtypeStruct((2, *info.image_shape), jnp.float32)
    labels = jax.ShapeDtypeStruct((2,), jnp.int32)
    rngs = {"dropout": jax.random.key(0)}

    def init(images: Any) -> Any:
        return model.init(jax.random.key(0), images, train=False)

    def infer(variables: Any, images: Any) -> Any:
        return model.apply(variables, images, train=False)

    def train(variables: Any, images: Any, labels: Any, rngs: Any) -> Any:
        heads = objective.init(jax.random.key(0), model, variables, images, rngs=rngs)
        outputs, _ = objective.forward(model, variables, heads, images, labels, rngs=rngs)
        return outputs.logits, objective(outputs)

    try:
        variables = jax.eval_shape(init, images)
        _check_collections(name, variables, config.method)
        variables = {**variables, "batch_stats": variables.get("batch_stats", {})}
        _check_logits(name, jax.eval_shape(infer, variables, images), info.num_classes)
        jax.eval_shape(train, variables, images, labels, rngs)
        branching = [term for term in ("out", "r_drop") if term in config.method.split("+")]
        draws = not branching or _draws(
            lambda: jax.eval_shape(train, variables, images, labels, {})
        )
    except UserError:
        raise
    except CaptureError as error:
        key = _KEYS[error.argument]
        raise UserError(
            f"model.name = {name!r} with config.{key} = {config[key]!r}: {error}"
        ) from error
    except Exception as error:
        # The network is the user's: it may raise anything.
        shape = ", ".join(map(str, images.shape))
        raise UserError(
            f"model.name = {name!r}: called as module(images, train=...) with images float32 "
            f"({shape}), it raised {reason(error)}"
        ) from error
    if not draws:
        raise UserError(
            f"config.method = {config.method!r}: expected a model with dropout, by which the "
            f"branches of {' and '.join(branching)} differ; {name} draws no random numbers in "
            "training"
        )


def _check_collections(name: str, variables: Mapping[str, Any], method: str) -> None:
    others = sorted(set(variables) - _COLLECTIONS)
    if others:
        raise UserError(
            f"model.name = {name!r}: has variables in {', '.join(others)}; expected params and "
            "batch_stats alone, as a run keeps no others"
        )
    if not variables.get("params"):
        raise UserError(f"model.name = {name!r}: has no parameters; expected some to train")
    taken = [path for path in variables["params"] if path.startswith(BRANCH)]
    if method == "multi_instance" and taken:
        raise UserError(
            f"model.name = {name!r}: has a module {taken[0]!r}; expected no name that begins with "
            f"{BRANCH!r} with method multi_instance, which names its copies so"
        )


def _check_logits(name: str, logits: Any, num_classes: int) -> None:
    found = getattr(logits, "shape", type(logits).__name__)
    if found != (2, num_classes):
        raise UserError(
            f"model.name = {name!r}: returned {found} for 2 images; expected logits "
            f"(2, {num_classes}), one row an image and one column a class"
        )


def _draws(trace: Callable[[], Any]) -> bool:
    """Whether a pass asks for random numbers, which it is not given."""
    try:
        trace()
    except InvalidRngError:
        return True
    return False
