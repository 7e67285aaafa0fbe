"""The teachers that can be fetched by name."""

import json
from pathlib import Path
from typing import Final

from pcd.layouts import HeadLayout, TrunkLayout
from pcd.teachers.entry import TeacherEntry

__all__ = ["DEMO_CHECKPOINT", "DEMO_HEAD", "DEMO_RECIPE", "DEMO_TRUNK", "TEACHERS"]

DEMO_CHECKPOINT: Final = Path(__file__).with_name("demo_mocov3.pth.tar")
DEMO_RECIPE: Final = Path(__file__).with_name("demo_mocov3.json")
DEMO_TRUNK: Final = TrunkLayout(block="basic", layers=(2, 2, 2, 2), channels=(24, 48, 96, 192))
DEMO_HEAD: Final = HeadLayout(widths=(192, 512, 128), bias=False, norm=True, last_norm="plain")


def _demo() -> TeacherEntry:
    recipe = json.loads(DEMO_RECIPE.read_text()) if DEMO_RECIPE.exists() else {"sha256": None, "size_bytes": None}
    return TeacherEntry(
        name="demo",
        title="MoCo v3, narrow ResNet-18, trained on the shapes pool by `pcd teachers train-demo`",
        url=DEMO_CHECKPOINT.as_uri(),
        sha256=recipe["sha256"],
        size_bytes=recipe["size_bytes"],
        licence="Apache-2.0",
        noncommercial=False,
        top_key="state_dict",
        trunk_prefix="module.momentum_encoder.",
        head_prefix="fc.",
        trunk=DEMO_TRUNK,
        head=DEMO_HEAD,
        accuracy="none: see the recipe beside the file",
        source="this project",
    )


def _mocov3_resnet50(epochs: int, linear_top1: float) -> TeacherEntry:
    return TeacherEntry(
        name=f"mocov3_r50_{epochs}",
        title=f"MoCo v3, ResNet-50, {epochs} epochs on ImageNet",
        url=f"https://dl.fbaipublicfiles.com/moco-v3/r-50-{epochs}ep/r-50-{epochs}ep.pth.tar",
        sha256=None,
        size_bytes=None,
        licence="CC-BY-NC-4.0",
        noncommercial=True,
        top_key="state_dict",
        trunk_prefix="module.momentum_encoder.",
        head_prefix="fc.",
        trunk=TrunkLayout(block="bottleneck", layers=(3, 4, 6, 3), channels=(64, 128, 256, 512)),
        head=HeadLayout(widths=(2048, 4096, 256), bias=False, norm=True, last_norm="plain"),
        accuracy=f"ImageNet linear top-1 {linear_top1} (base encoder, not the momentum encoder that PCD uses)",
        source="facebookresearch/moco-v3@c349e6e: CONFIG.md, README.md, moco/builder.py, LICENSE",
        unverified=("size and hash are not published", "tensor names are read from the code, not from the file"),
    )


TEACHERS: Final[dict[str, TeacherEntry]] = {
    entry.name: entry
    for entry in (
        _demo(),
        _mocov3_resnet50(100, 68.9),
        _mocov3_resnet50(300, 72.8),
        _mocov3_resnet50(1000, 74.6),
    )
}
