"""A convolution that is a matrix product on the CPU where maps have a few pixels alone.

XLA's own convolution loses up to a hundredfold there. Which form runs is settled when a program is
lowered for a platform, so that programs for accelerators hold `lax.conv_general_dilated` as it is.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["conv_general_dilated"]

_FEW_PIXELS = 4
_NHWC = ("NHWC", "HWIO", "NHWC")

Images = Float[Array, "batch height width channels"]
Kernel = Float[Array, "kernel_height kernel_width channels_a_group filters"]
Padding = tuple[tuple[int, int], tuple[int, int]]


def conv_general_dilated(
    lhs: Images,
    rhs: Kernel,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> Float[Array, "batch out_height out_width filters"]:
    """`jax.lax.conv_general_dilated`, for `flax.linen.Conv(conv_general_dilated=...)`.

    Args:
      lhs: images (B, H, W, C).
      rhs: kernel (kh, kw, C, F).
      window_strides: steps (vertical, horizontal) in pixels.
      padding: (before, after) of each axis, or the name that `lax` gives it.
      lhs_dilation: as in `lax`.
      rhs_dilation: as in `lax`.
      dimension_numbers: as in `lax`.
      feature_group_count: as in `lax`.
      **options: as in `lax`; other than `precision`, they rule the CPU's form out.

    Returns:
      (B, H', W', F), equal to `lax.conv_general_dilated` to rounding on the CPU, and that
      function itself elsewhere and for whatever the CPU's form does not cover.
    """

    def reference(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            **options,
        )

    precision = options.pop("precision", None)
    plain = not options and feature_group_count == 1
    options["precision"] = precision
    if not plain or lhs.ndim != 4 or not _is_nhwc(lhs, rhs, dimension_numbers):
        return reference(lhs, rhs)
    if any(step != 1 for step in (*(lhs_dilation or ()), *(rhs_dilation or ()))):
        return reference(lhs, rhs)
    strides = (window_strides[0], window_strides[1])
    sizes, kernel_sizes = lhs.shape[1:3], rhs.shape[:2]
    pads = _padding(padding, sizes, kernel_sizes, strides)
    if math.prod(sizes) > _FEW_PIXELS:
        return reference(lhs, rhs)

    if isinstance(precision, list):
        precision = tuple(precision)
    return _by_platform(lhs, rhs, strides, pads, precision)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _by_platform(
    x: Images, kernel: Kernel, strides: tuple[int, int], padding: Padding, precision: Any
) -> Array:
    """As a function of its own it is traced once for all layers of the same shapes."""

    def on_cpu(x: Array, kernel: Array) -> Array:
        return _between_pixels(x, kernel, strides, padding, precision)

    def elsewhere(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=_NHWC, precision=precision
        )

    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _between_pixels(
    x: Images, kernel: Kernel, strides: tuple[int, int], padding: Padding, precision: Any
) -> Array:
    """One product with the matrix that holds the weights of every input pixel to every output."""
    batch, *sizes, channels = x.shape
    *kernel_sizes, _, filters = kernel.shape
    starts, outer = [], []
    for size, extent, stride, (before, after) in zip(
        sizes, kernel_sizes, strides, padding, strict=True
    ):
        count = (size + before + after - extent) // stride + 1
        # Where in the kernel the first input pixel falls, for each output pixel.
        first = [before - stride * position for position in range(count)]
        low, high = max(0, -min(first)), max(0, max(first) + size - extent)
        starts.append([start + low for start in first])
        outer.append((low, high))
    rows, columns = starts
    height, width = sizes
    padded = jnp.pad(kernel, (*outer, (0, 0), (0, 0)))
    weights = jnp.stack(
        [padded[i : i + height, j : j + width] for i in rows for j in columns], axis=3
    )
    y = jnp.dot(
        x.reshape(batch, -1),
        weights.reshape(height * width * channels, -1),
        precision=precision,
    )
    return y.reshape(batch, len(rows), len(columns), filters)


def _is_nhwc(x: Array, kernel: Array, dimension_numbers: Any) -> bool:
    nhwc = lax.conv_dimension_numbers(x.shape, kernel.shape, _NHWC)
    return nhwc == lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers)


def _padding(
    padding: str | Sequence[tuple[int, int]],
    sizes: Sequence[int],
    kernel_sizes: Sequence[int],
    strides: Sequence[int],
) -> Padding:
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(sizes, kernel_sizes, strides, padding)
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)
