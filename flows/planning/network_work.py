"""How much the networks compute and hold, counted from their layouts; multiply-adds in units of 1e9 (GMAC)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from eval.settings import FinetuneSettings
from pcd.layouts import ResNetLayout, TrunkLayout, ViTLayout

__all__ = [
    "BACKBONES",
    "BackboneSize",
    "backbone_size",
    "detector_gmacs",
    "detector_millions",
    "mlp_gmacs",
    "trunk_gmacs",
]

_GIGA: Final = 1e9


@dataclass(frozen=True, slots=True)
class BackboneSize:
    gmacs: float
    """Forward, one image of 224 x 224 pixels."""
    millions: float
    """Parameters, without a classifier."""
    activations: float
    """Numbers that its convolutions put out for such an image, in millions."""
    channels: int


BACKBONES: Final = {
    "resnet18": BackboneSize(1.814, 11.18, 2.48, 512),
    "resnet34": BackboneSize(3.664, 21.28, 3.74, 512),
    "resnet50": BackboneSize(4.089, 23.51, 11.11, 2048),
    "mobilenet_v3_large": BackboneSize(0.217, 2.97, 4.40, 960),
    "shufflenet_v2_x1_0": BackboneSize(0.145, 1.25, 1.95, 1024),
}
"""Multiply-adds as torchvision 0.29 states them in its weights' metadata; the rest counted on torchvision's modules."""

_UNKNOWN: Final = BackboneSize(4.0, 25.0, 10.0, 512)
"""Of a timm model, which only its import would tell: about a ResNet-50's."""


def backbone_size(student: str) -> BackboneSize:
    return BACKBONES.get(student, _UNKNOWN)


def trunk_gmacs(layout: TrunkLayout) -> float:
    """Forward of a teacher's trunk, one image of 224 x 224 pixels; convolutions and matrix products alone."""
    return (_vit(layout) if isinstance(layout, ViTLayout) else _resnet(layout)) / _GIGA


def _resnet(layout: ResNetLayout) -> float:
    inside, side = layout.channels[0], 56
    total = 112 * 112 * 7 * 7 * 3 * inside
    for stage, (blocks, width) in enumerate(zip(layout.layers, layout.channels, strict=True)):
        out = 4 * width if layout.block == "bottleneck" else width
        before = side
        side = 56 >> stage
        for block in range(blocks):
            place = side * side
            if layout.block == "bottleneck":  # the stride is in the 3x3 convolution
                first = before * before if block == 0 else place
                total += inside * width * first + 9 * width * width * place + width * out * place
            else:
                total += 9 * inside * width * place + 9 * width * width * place
            if inside != out:
                total += inside * out * place
            inside = out
    return total


def _vit(layout: ViTLayout) -> float:
    tokens, width = (224 // layout.patch) ** 2 + 1, layout.width
    block = 12 * width * width * tokens + 2 * tokens * tokens * width
    return 3 * layout.patch**2 * width * (tokens - 1) + layout.depth * block


def mlp_gmacs(widths: Sequence[int], pixels: float) -> float:
    return sum(a * b for a, b in pairwise(widths)) * pixels / _GIGA


# Mask R-CNN with an FPN, as eval.detectron.config builds it.


def detector_gmacs(settings: FinetuneSettings, student: str, pixels: float, *, training: bool) -> float:
    """Forward of one image of so many pixels.

    For Mask R-CNN R50-FPN at 1280 x 800 with 1000 proposals and 100 detections this gives 257; mmdetection states 260.
    """
    size, fpn = backbone_size(student), settings.fpn_channels
    levels, wide = 1 + 1 / 4 + 1 / 16 + 1 / 64, size.channels // 8
    p2 = pixels / 16
    lateral: float = sum(p2 / 4**i * (wide << i) * fpn for i in range(4))
    pyramid = lateral + p2 * levels * 9 * fpn * fpn
    proposals = p2 * levels * (9 * fpn * fpn + 15 * fpn)
    boxes = settings.rois_per_image if training else settings.proposals[1]
    masks = settings.rois_per_image / 4 if training else settings.detections_per_image
    width, mask = settings.box_head_width, settings.mask_head_width
    box_head: float = boxes * (49 * fpn * width + width * width)
    convolutions = 196 * 9 * mask * (fpn + (settings.mask_head_convs - 1) * mask) if settings.mask_head_convs else 0
    mask_head = masks * (convolutions + 196 * 4 * mask * mask)
    return size.gmacs * pixels / 224**2 + (pyramid + proposals + box_head + mask_head) / _GIGA


def detector_millions(settings: FinetuneSettings, student: str) -> float:
    """Parameters."""
    size, fpn = backbone_size(student), settings.fpn_channels
    wide, width, mask = size.channels // 8, settings.box_head_width, settings.mask_head_width
    pyramid = sum((wide << i) * fpn for i in range(4)) + 5 * 9 * fpn * fpn
    heads = 49 * fpn * width + width * width + settings.mask_head_convs * 9 * mask * mask + 4 * mask * mask
    return size.millions + (pyramid + heads) / 1e6
