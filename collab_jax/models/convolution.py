"""A convolution that is computed on the CPU in the form that is quickest there.

XLA's own convolution loses up to a hundredfold on the CPU where maps have a few pixels alone, and a
1x1 kernel needs none. Which form runs is settled when a program is lowered for a platform, so that
programs for accelerators hold `lax.conv_general_dilated` as it is.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

__all__ = ["conv_general_dilated"]

_FEW_PIXELS = 4
_MANY_PIXELS = 256
_PIXELS_A_PRODUCT = 2048

Images = Float[Array, "batch height width channels"]
Kernel = Float[Array, "kernel_height kernel_width channels filters"]
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
      **options: as in `lax`; other than `precision`, they rule the CPU's forms out.

    Returns:
      (B, H', W', F), equal to `lax.conv_general_dilated` to rounding on the CPU, and that
      function itself elsewhere, for whatever the CPU's forms do not cover.
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
    if math.prod(sizes) <= _FEW_PIXELS:

        def on_cpu(x: Array, kernel: Array) -> Array:
            return _between_pixels(x, kernel, strides, pads, precision)

    elif kernel_sizes == (1, 1) and pads == ((0, 0), (0, 0)):

        def on_cpu(x: Array, kernel: Array) -> Array:
            return _pixel_by_pixel(x, kernel, strides, precision)

    elif strides == (1, 1) and math.prod(sizes) >= _MANY_PIXELS:

        def on_cpu(x: Array, kernel: Array) -> Array:
            return _in_one_step(x, kernel, pads, precision)

    else:
        return reference(lhs, rhs)
    return lax.platform_dependent(lhs, rhs, cpu=on_cpu, default=reference)


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


def _pixel_by_pixel(x: Images, kernel: Kernel, strides: tuple[int, int], precision: Any) -> Array:
    """A 1x1 convolution: one product over all pixels."""
    x = x[:, :: strides[0], :: strides[1]]
    y = jnp.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0], precision=precision)
    return y.reshape(*x.shape[:3], kernel.shape[-1])


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _in_one_step(x: Images, kernel: Kernel, padding: Padding, precision: Any) -> Array:
    """A convolution of stride 1 whose weight gradient is quick on large maps."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


@partial(_in_one_step.defjvp, symbolic_zeros=True)
def _in_one_step_jvp(
    padding: Padding, precision: Any, primals: tuple[Any, Any], tangents: tuple[Any, Any]
) -> tuple[Array, Array]:
    x, kernel = primals
    x_tangent, kernel_tangent = tangents
    y = _in_one_step(x, kernel, padding, precision)
    tangent = jnp.zeros_like(y)
    if not isinstance(x_tangent, SymbolicZero):
        tangent = tangent + _in_one_step(x_tangent, kernel, padding, precision)
    if not isinstance(kernel_tangent, SymbolicZero):
        # Written as a transpose, so that transposing it gives the weight gradient in its own form.
        to_weights = partial(_weight_gradient, x, kernel.shape[:2], padding, precision)
        (part,) = jax.linear_transpose(to_weights, y)(kernel_tangent)
        tangent = tangent + part
    return y, tangent


def _weight_gradient(
    x: Images,
    kernel_sizes: tuple[int, int],
    padding: Padding,
    precision: Any,
    y: Float[Array, "batch out_height out_width filters"],
) -> Kernel:
    """Products of copies of x shifted sideways with copies of y shifted up and down.

    That takes kh + kw copies in place of the kh * kw that a kernel's weights ask for.
    """
    batch, height, _, channels = x.shape
    _, out_height, out_width, filters = y.shape
    rows, columns = kernel_sizes
    (top, _), left_right = padding
    x = jnp.pad(x, ((0, 0), (0, 0), left_right, (0, 0)))
    shifted_x = jnp.concatenate([x[:, :, j : j + out_width] for j in range(columns)], axis=3)
    # Row r of x meets row r + top - i of y under row i of the kernel.
    above = rows - 1 - top
    below = height + top - out_height
    y = jnp.pad(y, ((0, 0), (above, below), (0, 0), (0, 0)))
    starts = [above + top - i for i in range(rows)]
    shifted_y = jnp.concatenate([y[:, s : s + height] for s in starts], axis=3)
    images = max(1, _PIXELS_A_PRODUCT // (height * out_width))
    groups = batch // images if batch % images == 0 else 1
    products = lax.dot_general(
        shifted_x.reshape(groups, -1, columns * channels),
        shifted_y.reshape(groups, -1, rows * filters),
        (((1,), (1,)), ((0,), (0,))),
        precision=precision,
    ).sum(axis=0)
    return products.reshape(columns, channels, rows, filters).transpose(2, 0, 1, 3)


def _is_nhwc(x: Array, kernel: Array, dimension_numbers: Any) -> bool:
    nhwc = lax.conv_dimension_numbers(x.shape, kernel.shape, ("NHWC", "HWIO", "NHWC"))
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
