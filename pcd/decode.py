"""An image file's bytes to RGB pixels: JPEG by torchvision, everything else by Pillow.

torchvision decodes JPEG to the same pixels in two thirds of Pillow's time. It calls its decoders deprecated in favour
of TorchCodec since 0.29; the release we pin has them, and without them `_decode_by_pillow` alone would do.
"""

import io
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from pcd.errors import PCDError

__all__ = ["UnreadableImageError", "decode_rgb", "read_rgb"]

_MOST_PIXELS: Final = 2 * 89_478_485
"""Where Pillow, too, takes an image for an attack: twice 256 MB of RGB."""


class UnreadableImageError(Exception):
    """These bytes are no whole image."""


def decode_rgb(data: bytearray) -> Tensor:
    """Bytes of a file to (3, H, W) uint8, turned upright as its EXIF orientation says, the channels lying together.

    Grey, CMYK, palette and 16-bit images become RGB; transparency is dropped; of an animation the first frame counts.

    Raises:
        UnreadableImageError: the bytes are damaged, cut short, of no known format or of absurd size.
    """
    if data[:3] == b"\xff\xd8\xff" and _pixels_of_jpeg(data) <= _MOST_PIXELS:
        try:
            encoded = torch.frombuffer(data, dtype=torch.uint8)
            pixels: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
            return pixels
        except RuntimeError:  # Pillow may still make something of it, and says better what is wrong
            pass
    try:
        return _decode_by_pillow(data)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(str(error)) from None


def read_rgb(path: Path) -> Tensor:
    """A file as `decode_rgb` gives it. Raises PCDError if it is missing or damaged."""
    try:
        return decode_rgb(bytearray(path.read_bytes()))
    except (OSError, UnreadableImageError) as error:
        raise PCDError(f"cannot read image {path} ({error}); remove it or replace it") from None


def _decode_by_pillow(data: bytearray) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of palettes with transparency, large images and odd metadata
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16-bit grey, which convert() would cut off at 255
                grey = np.asarray(upright).astype(np.int64) >> 8
                upright = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
            rgb = np.array(upright.convert("RGB"))  # (H, W, 3), a copy that may be written to
    return torch.from_numpy(rgb).permute(2, 0, 1)


def _pixels_of_jpeg(data: bytearray) -> int:
    """Height times width as the frame's header says; 0 if there is none, which the decoder will find out."""
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # those three are tables
            return int.from_bytes(data[place + 5 : place + 7]) * int.from_bytes(data[place + 7 : place + 9])
        place += 2 + length
    return 0
