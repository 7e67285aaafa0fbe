"""Teachers trained on labels: torchvision's ResNets, their classifier as the head."""

from typing import Final

from pcd.layouts import HeadLayout, ResNetLayout
from pcd.teachers.entry import PublishedHash, TeacherEntry
from pcd.teachers.published.shared import NAMES_FROM_CODE, RESNET18, RESNET50

__all__ = ["SUPERVISED"]


def _torchvision(
    name: str, title: str, trunk: ResNetLayout, sha256_prefix: str, megabytes: float, top1: float, resize: int
) -> TeacherEntry:
    depth = "18" if trunk.block == "basic" else "50"
    return TeacherEntry(
        name=name,
        title=title,
        url=f"https://download.pytorch.org/models/resnet{depth}-{sha256_prefix}.pth",
        published_hash=PublishedHash("sha256", sha256_prefix),
        megabytes=megabytes,
        licence="BSD-3-Clause",
        noncommercial=False,
        top_key=None,
        trunk_prefix="",
        head_prefix="",
        trunk=trunk,
        # One linear layer: the same on every pixel and on their mean.
        head=HeadLayout(
            widths=(trunk.out_channels, 1000), bias=True, norm=False, last_norm="none", layer_names=("fc",)
        ),
        accuracy=f"ImageNet top-1 {top1} (resized to {resize}, centre crop 224)",
        source="torchvision 0.29.1: torchvision/models/resnet.py, METADATA (Pre-trained Model License)",
        unverified=(
            "the hash is published by its first 8 digits only",
            "the licence is the code's; weights may be bound by the terms of ImageNet",
            NAMES_FROM_CODE,
        ),
    )


SUPERVISED: Final = (
    _torchvision("sup_r50", "Supervised ResNet-50, torchvision's V1", RESNET50, "0676ba61", 102.5, 76.130, 256),
    _torchvision("sup_r50_v2", "Supervised ResNet-50, torchvision's V2", RESNET50, "11ad3fa6", 102.5, 80.858, 232),
    _torchvision("sup_r18", "Supervised ResNet-18, torchvision's V1", RESNET18, "f37072fd", 46.8, 69.758, 256),
)
