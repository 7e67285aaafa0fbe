"""Projection heads: the teacher's over vectors, the student's over maps in the teacher's shape."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from torch import nn

from pcd.layouts import HeadLayout

__all__ = ["build_dense_head", "build_pixel_mlp", "build_vector_head"]


def build_vector_head(layout: HeadLayout) -> nn.Sequential:
    """Over vectors; numbered as in the checkpoints: 0 Linear, 1 BatchNorm, 2 ReLU, 3 Linear, 4 BatchNorm, no affine."""
    return _build(layout, nn.Linear, nn.BatchNorm1d)


def build_dense_head(layout: HeadLayout) -> nn.Sequential:
    """The same over maps: its Linear layers are 1x1 convolutions, and each pixel has its own activation."""
    return _build(layout, partial(nn.Conv2d, kernel_size=1), nn.BatchNorm2d)


def _build(
    layout: HeadLayout, linear: Callable[..., nn.Module], norm: Callable[..., nn.BatchNorm1d | nn.BatchNorm2d]
) -> nn.Sequential:
    activation = nn.ReLU if layout.activation == "relu" else nn.GELU
    last_bias = layout.bias if layout.last_bias is None else layout.last_bias
    layers: list[nn.Module] = []
    for i, (inside, outside) in enumerate(pairwise(layout.widths)):
        is_last = i == len(layout.widths) - 2
        layers.append(linear(inside, outside, bias=last_bias if is_last else layout.bias))
        if not is_last:
            layers += [norm(outside), activation()] if layout.norm else [activation()]
    if layout.last_norm != "none":
        layers.append(norm(layout.widths[-1], affine=False))
    return nn.Sequential(*layers)


def build_pixel_mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """An MLP over pixels, made of 1x1 convolutions; each hidden layer has BatchNorm2d and ReLU. (B, C, H, W) maps.

    Without widths it is the identity.
    """
    layers: list[nn.Module] = []
    for i, (inside, outside) in enumerate(pairwise(widths)):
        is_last = i == len(widths) - 2
        layers.append(nn.Conv2d(inside, outside, kernel_size=1, bias=is_last))
        if not is_last:
            layers += [nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
