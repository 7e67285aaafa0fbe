"""How much the networks compute and hold, counted from their layouts; multiply-adds in units of 1e9 (GMAC)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from eval.finetune_settings import FinetuneSettings
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
    widths: tuple[int, int, int, int]
    """Channels of its maps at strides 4, 8, 16 and 32."""

    @property
    def channels(self) -> int:
        """Of its deepest map."""
        return self.widths[-1]


BACKBONES: Final = {
    "resnet18": BackboneSize(1.814, 11.18, 2.48, (64, 128, 256, 512)),
    "resnet34": BackboneSize(3.664, 21.28, 3.74, (64, 128, 256, 512)),
    "resnet50": BackboneSize(4.089, 23.51, 11.11, (256, 512, 1024, 2048)),
    "mobilenet_v3_large": BackboneSize(0.217, 2.97, 4.40, (24, 40, 112, 960)),
    "shufflenet_v2_x1_0": BackboneSize(0.145, 1.25, 1.95, (24, 116, 232, 1024)),
}
"""Multiply-adds as torchvision 0.29 states them in its weights' metadata; the rest counted on torchvision's modules."""

_RES5: Final = {"resnet18": (0.411, 8.39), "resnet34": (0.642, 13.11), "resnet50": (0.809, 14.96)}
"""Multiply-adds of the last stage from 14 x 14 pixels on, as a C4 head computes it of every region, and its millions of
parameters; counted on torchvision's modules."""

_UNKNOWN: Final = BackboneSize(4.0, 25.0, 10.0, (64, 128, 256, 512))
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


# Detectors, as eval.detectron.config builds them.


def detector_gmacs(settings: FinetuneSettings, student: str, pixels: float, *, training: bool) -> float:
    """Forward of one image of so many pixels.

    For Mask R-CNN R50-FPN at 1280 x 800 with 1000 proposals and 100 detections this gives 257; mmdetection states 260.
    """
    boxes = settings.rois_per_image if training else settings.proposals[1]
    masks = settings.rois_per_image / 4 if training else settings.detections_per_image
    parts = _fpn_gmacs if settings.has_pyramid else _c4_gmacs
    mask_head = masks * _mask_head(settings, backbone_size(student)) if settings.has_masks else 0
    return parts(settings, student, pixels, boxes) + mask_head / _GIGA


def _fpn_gmacs(settings: FinetuneSettings, student: str, pixels: float, boxes: float) -> float:
    size, fpn = backbone_size(student), settings.fpn_channels
    levels, p2 = 1 + 1 / 4 + 1 / 16 + 1 / 64, pixels / 16
    lateral: float = sum(p2 / 4**i * wide * fpn for i, wide in enumerate(size.widths))
    pyramid = lateral + p2 * levels * 9 * fpn * fpn
    proposals = p2 * levels * (9 * fpn * fpn + 15 * fpn)
    width = settings.box_head_width
    convolutions = 4 * 49 * 9 * fpn * fpn if settings.box_head == "4conv1fc" else width * width
    box_head = boxes * (49 * fpn * width + convolutions)
    return size.gmacs * pixels / 224**2 + (pyramid + proposals + box_head) / _GIGA


def _c4_gmacs(settings: FinetuneSettings, student: str, pixels: float, boxes: float) -> float:
    size, (res5, _), c4 = backbone_size(student), _RES5[student], backbone_size(student).widths[2]
    anchors = 3 * len(settings.anchor_sizes)
    proposals = pixels / 16**2 * (9 * c4 * c4 + 5 * anchors * c4)
    again = settings.detections_per_image if settings.has_masks else 0  # the masks' regions pass res5 once more
    return (size.gmacs - res5) * pixels / 224**2 + proposals / _GIGA + (boxes + again) * res5


def _mask_head(settings: FinetuneSettings, size: BackboneSize) -> float:
    """Multiply-adds for one region."""
    mask, convs = settings.mask_head_width, settings.mask_head_convs
    inside, pixels = (settings.fpn_channels, 196) if settings.has_pyramid else (size.channels, 49)
    first = 9 * inside * mask + (convs - 1) * 9 * mask * mask if convs else 0
    return pixels * (first + 4 * (mask if convs else inside) * mask)


def detector_millions(settings: FinetuneSettings, student: str) -> float:
    """Parameters."""
    size, mask = backbone_size(student), settings.mask_head_width
    if settings.has_pyramid:
        fpn, width = settings.fpn_channels, settings.box_head_width
        second = 4 * 9 * fpn * fpn if settings.box_head == "4conv1fc" else width * width
        heads = sum(wide * fpn for wide in size.widths) + 5 * 9 * fpn * fpn + 49 * fpn * width + second
    else:
        heads = 9 * size.widths[2] ** 2
    inside = settings.fpn_channels if settings.has_pyramid else size.channels
    convs = settings.mask_head_convs
    if settings.has_masks:
        first = 9 * inside * mask + (convs - 1) * 9 * mask * mask if convs else 0
        heads += first + 4 * (mask if convs else inside) * mask
    return size.millions + heads / 1e6
