"""Where a view lies in its image: a crop as torchvision's RandomResizedCrop draws it, flipped or not; or the centre."""

import math
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from pcd.imagenet import IMAGENET_MEAN, IMAGENET_STD
from pcd.settings import ViewSettings

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Window", "central_view", "cut_view", "draw_flip", "draw_window"]

_ASPECTS: Final = (3 / 4, 4 / 3)
"""Least and largest ratio of a crop's width to its height."""
_TRIES: Final = 10


class Window(NamedTuple):
    """A crop of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_window(random: np.random.Generator, height: int, width: int, settings: ViewSettings) -> Window:
    """A crop of random area and aspect; the largest central one of a fitting aspect if ten tries give none inside.

    Always draws the same number of random numbers.
    """
    draws = random.random((_TRIES, 4)).tolist()
    low, high = math.log(_ASPECTS[0]), math.log(_ASPECTS[1])
    for area_draw, aspect_draw, top_draw, left_draw in draws:
        area = height * width * (settings.min_scale + (1 - settings.min_scale) * area_draw)
        aspect = math.exp(low + (high - low) * aspect_draw)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Window(int(top_draw * (height - h + 1)), int(left_draw * (width - w + 1)), h, w)
    w = min(width, round(height * _ASPECTS[1]))
    h = min(height, round(width / _ASPECTS[0]))
    return Window((height - h) // 2, (width - w) // 2, h, w)


def draw_flip(random: np.random.Generator) -> bool:
    return bool(random.random() < 0.5)


def cut_view(image: Tensor, window: Window, flipped: bool, size: int) -> Tensor:
    """Crop, resize by antialiased bilinear interpolation (as Pillow does, to the last bit but one), and flip.

    Args:
        image: (3, H, W) uint8; quickest where its channels lie together, as decoders leave them.

    Returns:
        (3, size, size) uint8, contiguous.
    """
    top, left, height, width = window
    crop = image[None, :, top : top + height, left : left + width]
    view = F.interpolate(crop, size=(size, size), mode="bilinear", antialias=True)[0]
    return (view.flip(-1) if flipped else view).contiguous()


def central_view(image: Tensor, size: int) -> Tensor:
    """What frozen features are measured on: the shorter side at 256/224 of `size`, its centre cut out; no randomness.

    (3, H, W) uint8 to (3, size, size) floats, normalised by ImageNet's mean and std.
    """
    resized = v2.functional.resize(image, [round(size * 256 / 224)], antialias=True)
    cut = v2.functional.center_crop(resized, [size, size])
    scaled = v2.functional.to_dtype(cut, torch.float32, scale=True)
    view: Tensor = v2.functional.normalize(scaled, list(IMAGENET_MEAN), list(IMAGENET_STD))
    return view
