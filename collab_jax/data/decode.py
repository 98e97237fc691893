"""One encoded image to uint8 pixels: grey, palette, transparent, 16-bit and rotated ones."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from collab_jax.data.arrays import area_downscale
from collab_jax.errors import UserError, needs

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Header", "decode", "read_header", "square"]

_GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image's header tells.

    Attributes:
        height: in pixels, after the rotation that its EXIF data ask for.
        width: likewise.
        grey: whether the file holds no colours; a palette counts as colours.
    """

    height: int
    width: int
    grey: bool


def read_header(file: io.BufferedReader | io.BytesIO, where: str) -> Header:
    """Read no more than an image's header.

    Args:
        file: the encoded image.
        where: its name, for messages.

    Raises:
        UserError: not an image, or one of a type that is not read.
    """
    with _opened(file, where) as image:
        if image.mode in ("I", "F"):
            raise UserError(f"{where}: pixels of 32 bits, expected 8 or 16 bits a channel")
        width, height = image.size
        if image.getexif().get(_ORIENTATION) in _LYING:
            width, height = height, width
        return Header(height, width, image.mode in _GREY)


def decode(file: io.BufferedReader | io.BytesIO, channels: int, where: str) -> np.ndarray:
    """An image's pixels, upright; what is transparent is put on white.

    Args:
        file: the encoded image; of an animation the first frame.
        channels: 1 for grey values, 3 for red, green and blue.
        where: its name, for messages.

    Returns:
        uint8 (H, W, channels).

    Raises:
        UserError: the image is damaged.
    """
    from PIL import Image, ImageOps

    with _opened(file, where) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            values = np.asarray(upright).astype(np.uint32)
            upright = Image.fromarray(((values + 128) // 257).astype(np.uint8))
        elif upright.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright).convert("RGB")
        pixels = np.asarray(upright.convert("L" if channels == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], channels)


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of an image, resized.

    Args:
        image: uint8 (H, W, C).
        size: the new side; where it is less than the image's, each new pixel is the mean over the
            area that it covers, otherwise it is interpolated between its neighbours.

    Returns:
        uint8 (size, size, C).
    """
    from PIL import Image

    height, width, channels = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = image[top : top + side, left : left + side]
    if size <= side:
        return area_downscale(middle[None], size, size)[0]
    # Pillow takes grey images without their axis of channels.
    pixels = Image.fromarray(np.ascontiguousarray(middle).squeeze(-1) if channels == 1 else middle)
    resized = np.asarray(pixels.resize((size, size), Image.Resampling.BILINEAR))
    return resized.reshape(size, size, channels)


@contextlib.contextmanager
def _opened(file: io.BufferedReader | io.BytesIO, where: str) -> Iterator[Image]:
    """The image; one line naming it for whatever damaged bytes make Pillow raise."""
    with needs("train"):
        from PIL import Image, UnidentifiedImageError
    try:
        with Image.open(file) as image:
            yield image
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UserError(
            f"{where}: not a readable image, expected a PNG, JPEG or the like"
        ) from None
    # Its readers raise errors of many kinds, SyntaxError and struct.error among them.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{where}: the image is damaged ({reason})") from None
