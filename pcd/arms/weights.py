"""The weights behind the arm supervised: torchvision's first ones of each student, with the hash of their file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pcd.teachers.entry import PublishedFile, PublishedHash

__all__ = ["SUPERVISED_WEIGHTS", "SupervisedWeights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedWeights(PublishedFile):
    """A classifier's file; all but the classifier itself is the student's backbone."""

    student: str


def _torchvision(student: str, file: str, megabytes: float, top1: float) -> SupervisedWeights:
    return SupervisedWeights(
        name=f"supervised_{student}",
        title=f"Supervised {student}, torchvision's V1",
        url=f"https://download.pytorch.org/models/{file}",
        published_hash=PublishedHash("sha256", file.removesuffix(".pth").rpartition("-")[2]),
        megabytes=megabytes,
        licence="BSD-3-Clause",
        noncommercial=False,
        accuracy=f"ImageNet top-1 {top1}",
        source="torchvision 0.29.1: models/*.py (IMAGENET1K_V1)",
        unverified=(
            "the hash is published by its first digits only",
            "the licence is the code's; weights may be bound by the terms of ImageNet",
        ),
        student=student,
    )


SUPERVISED_WEIGHTS: Final[Mapping[str, SupervisedWeights]] = {
    weights.student: weights
    for weights in (
        _torchvision("resnet18", "resnet18-f37072fd.pth", 46.8, 69.758),
        _torchvision("resnet34", "resnet34-b627a593.pth", 87.3, 73.314),
        _torchvision("resnet50", "resnet50-0676ba61.pth", 102.5, 76.130),
        _torchvision("mobilenet_v3_large", "mobilenet_v3_large-8738ca79.pth", 22.1, 74.042),
        _torchvision("shufflenet_v2_x1_0", "shufflenetv2_x1-5666bf0f80.pth", 9.2, 69.362),
    )
}
