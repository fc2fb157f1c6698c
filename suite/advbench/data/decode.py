"""One image file to pixels, refusing what would not mean what it seems to."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from advbench.spec import BadInput

GREY = ("1", "L")
DEEP = ("I", "F")
"""Pillow's modes of more than 8 bits a pixel begin with these; its conversion would clip them without a word."""
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)
"""What Pillow's decoders raise on damaged files; SyntaxError is their word for a broken PNG."""
MARGIN = 256 / 224
"""Of the short side before the crop to the side after it, as everyone evaluates on ImageNet since Krizhevsky et al.
2012."""


def opened(file: str) -> Image.Image:
    """The decoded image. Raises BadInput that names the file."""
    try:
        with Image.open(file) as image:
            image.load()
    except DAMAGED as error:
        raise BadInput(f"{file}: not a readable image: {error}") from None
    if image.mode.startswith(DEEP):
        raise BadInput(f"{file}: more than 8 bits a channel (mode {image.mode}); save it with 8")
    return image


def mode_of(image: Image.Image) -> str:
    """L for a grey image, RGB for any other."""
    return "L" if image.mode in GREY else "RGB"


def pixels(file: str, *, mode: str, width: int, height: int, crop: bool) -> NDArray[np.uint8]:
    """(C, H, W) of an image, which must have that size unless `crop` makes it so. Raises BadInput."""
    image = opened(file)
    if not crop and image.size != (width, height):
        raise BadInput(f"{file}: {image.width}x{image.height} pixels, but the first image has {width}x{height}")
    if mode == "L" and image.mode not in GREY:
        raise BadInput(f"{file}: a colour image, but the first one is grey")
    image = image.convert(mode)
    if crop:
        image = cropped(image, width)
    return np.asarray(image).reshape(height, width, len(mode)).transpose(2, 0, 1)


def cropped(image: Image.Image, size: int) -> Image.Image:
    """The central square of `size` after the short side was made 256/224 of it, bilinear: torchvision's evaluation."""
    short = round(size * MARGIN)
    width, height = (int(short * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))
