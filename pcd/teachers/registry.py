"""The teachers that can be fetched by name."""

import json
from pathlib import Path
from typing import Final

from pcd.layouts import HeadLayout, ResNetLayout
from pcd.teachers.entry import PublishedHash, TeacherEntry
from pcd.teachers.published import PUBLISHED

__all__ = ["DEMO_CHECKPOINT", "DEMO_HEAD", "DEMO_RECIPE", "DEMO_TRUNK", "TEACHERS"]

DEMO_CHECKPOINT: Final = Path(__file__).with_name("demo_mocov3.pth.tar")
DEMO_RECIPE: Final = Path(__file__).with_name("demo_mocov3.json")
DEMO_TRUNK: Final = ResNetLayout(block="basic", layers=(2, 2, 2, 2), channels=(24, 48, 96, 192))
DEMO_HEAD: Final = HeadLayout(widths=(192, 512, 128), bias=False, norm=True, last_norm="plain")


def _demo() -> TeacherEntry:
    recipe = json.loads(DEMO_RECIPE.read_text()) if DEMO_RECIPE.exists() else None
    return TeacherEntry(
        name="demo",
        title="MoCo v3, narrow ResNet-18, trained without labels on a pool of single shapes",
        url=DEMO_CHECKPOINT.as_uri(),
        published_hash=PublishedHash("sha256", recipe["sha256"]) if recipe else None,
        size_bytes=recipe["size_bytes"] if recipe else None,
        megabytes=recipe["size_bytes"] / 1e6 if recipe else None,
        licence="Apache-2.0",
        noncommercial=False,
        top_key="state_dict",
        trunk_prefix="module.momentum_encoder.",
        head_prefix="module.momentum_encoder.fc.",
        trunk=DEMO_TRUNK,
        head=DEMO_HEAD,
        accuracy="none: see the recipe beside the file",
        source="this project",
    )


TEACHERS: Final[dict[str, TeacherEntry]] = {entry.name: entry for entry in (_demo(), *PUBLISHED)}
