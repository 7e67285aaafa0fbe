"""Projection heads: the teacher's over vectors, the student's over maps in the teacher's shape."""

from itertools import pairwise

from torch import nn

from pcd.layouts import HeadLayout

__all__ = ["build_pixel_mlp", "build_vector_head"]


def build_vector_head(layout: HeadLayout) -> nn.Sequential:
    """Numbered as in the checkpoints: 0 Linear, 1 BatchNorm, 2 ReLU, 3 Linear, 4 BatchNorm without affine."""
    layers: list[nn.Module] = []
    *hidden, last = range(len(layout.widths) - 1)
    for i in hidden:
        layers.append(nn.Linear(layout.widths[i], layout.widths[i + 1], bias=layout.bias))
        if layout.norm:
            layers.append(nn.BatchNorm1d(layout.widths[i + 1]))
        layers.append(nn.ReLU())
    layers.append(nn.Linear(layout.widths[last], layout.widths[last + 1], bias=layout.bias))
    if layout.last_norm == "plain":
        layers.append(nn.BatchNorm1d(layout.widths[-1], affine=False))
    return nn.Sequential(*layers)


def build_pixel_mlp(widths: tuple[int, ...]) -> nn.Sequential:
    """An MLP over pixels, made of 1x1 convolutions; each hidden layer has BatchNorm2d and ReLU. (B, C, H, W) maps."""
    layers: list[nn.Module] = []
    for i, (inside, outside) in enumerate(pairwise(widths)):
        is_last = i == len(widths) - 2
        layers.append(nn.Conv2d(inside, outside, kernel_size=1, bias=is_last))
        if not is_last:
            layers += [nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
