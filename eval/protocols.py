"""The protocols that the field compares backbones by, each a short difference from a base; without torch.

Entries alone, with nothing that computes: they stand whole in a stage's settings, so its key leaves this file out
(flows.planning.keys).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import JsonValue

from eval.probes.settings import DEPARTURES

__all__ = ["PROTOCOLS", "Protocol"]

DataKind = Literal["coco", "voc", "cityscapes", "classes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    name: str
    base: str | None = None
    """The protocol that `changes` are laid over; None: the defaults of the settings."""
    changes: Mapping[str, JsonValue]
    data_kind: DataKind
    """What its set is annotated like; `coco` takes any set in COCO's format."""
    source: str
    """Where every change can be read, by repository and commit."""
    unverified: str = ""
    """What nobody could check so far, or where it cannot be as its source."""
    world_size: int = 8
    """Processes that batch, learning rate and iterations are meant for (Detectron2's REFERENCE_WORLD_SIZE)."""
    trials: int = 1
    """Runs whose mean the field reports."""


_D2: Final = "facebookresearch/detectron2@v0.6"
_MOCO: Final = "facebookresearch/moco@3402035 detection/configs"
_SSLIGHT: Final = "saic-fi/SSLight@45c6376 detection/configs"
_TWO_X: Final[dict[str, JsonValue]] = {"iterations": 180_000}  # the steps are shares: 120k and 160k
_VOC: Final[dict[str, JsonValue]] = {
    "set": "voc", "score_by": "voc", "iterations": 24_000, "decay_at": [18 / 24, 22 / 24], "warmup_iterations": 100,
    "train_sizes": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
}  # fmt: skip
_NO_FIGURE: Final = (
    "no published figure of a small backbone by just this recipe; the schedule behind PCD's 37.4 / 34.0 is not known"
)
_C4_DIFFERS: Final = (
    "MoCo's naiveSyncBN weighs every GPU alike, SyncBN every pixel; res5 of R18 and R34 as the head is SSLight's "
    "(detection/train_net.py)"
)

_ALL: Final = (
    Protocol(
        name="fpn_1x",
        changes={"precise_bn_iterations": 200},
        data_kind="coco",
        source=f"{_D2} COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml, with the SyncBN in backbone, FPN and "
        "heads and the precise BN of Misc/mask_rcnn_R_50_FPN_3x_syncbn.yaml, nothing frozen",
        unverified=_NO_FIGURE,
    ),
    Protocol(
        name="fpn_2x",
        base="fpn_1x",
        changes=_TWO_X,
        data_kind="coco",
        source=f"fpn_1x, twice as long (steps as in {_MOCO}/coco_R_50_C4_2x.yaml)",
        unverified=_NO_FIGURE,
    ),
    Protocol(
        name="fpn_1x_4conv1fc",
        base="fpn_1x",
        changes={"box_head": "4conv1fc"},
        data_kind="coco",
        source=f"{_D2} Misc/mask_rcnn_R_50_FPN_3x_syncbn.yaml, by the 1x schedule",
        unverified=_NO_FIGURE,
    ),
    Protocol(
        name="fpn_1x_frozen",
        base="fpn_1x",
        changes={"freeze_backbone": True},
        data_kind="coco",
        source="fpn_1x over a backbone that learns nothing, as in Vasconcelos et al. 2022 (arXiv 2204.00484)",
        unverified="no published figure by just this recipe: that paper's heads and schedules are larger",
    ),
    Protocol(
        name="sslight_fpn_1x",
        base="fpn_1x",
        changes={"norm_everywhere": False, "precise_bn_iterations": 0},
        data_kind="coco",
        source=f"{_SSLIGHT}/RESNET/coco-r18-fpn-1x.yaml and Base-RCNN-FPN-BN.yaml",
        unverified="its MobileNetV2 stands on P4 to P6 with three anchor sizes each, which this is not",
    ),
    Protocol(
        name="c4_1x",
        base="fpn_1x",
        changes={
            "architecture": "mask_rcnn_c4",
            "extra_norm": True,
            "mask_head_convs": 0,
            "proposals_before_nms": [12_000, 6_000],
            "proposals": [2_000, 1_000],
        },
        data_kind="coco",
        source=f"{_D2} COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml, with {_MOCO}/Base-RCNN-C4-BN.yaml",
        unverified=_C4_DIFFERS,
    ),
    Protocol(
        name="c4_2x",
        base="c4_1x",
        changes=_TWO_X,
        data_kind="coco",
        source=f"{_MOCO}/coco_R_50_C4_2x.yaml",
        unverified=_C4_DIFFERS,
    ),
    Protocol(
        name="voc_c4_24k",
        base="c4_1x",
        changes={**_VOC, "architecture": "faster_rcnn_c4", "mask_head_convs": 4},  # the default: there is no such head
        data_kind="voc",
        source="facebookresearch/moco@90e244a detection/configs/pascal_voc_R_50_C4_24k.yaml, mean of 5 trials",
        unverified=_C4_DIFFERS,
        trials=5,
    ),
    Protocol(
        name="voc_fpn_24k",
        base="fpn_1x",
        changes={**_VOC, "architecture": "faster_rcnn_fpn"},
        data_kind="voc",
        source="the schedule of voc_c4_24k over an FPN",
        unverified="no published figure by just this recipe: SSLight's RESNET/voc-r18-fpn.yaml takes 32 images at "
        "LR 0.01 and 200 iterations of warm-up, and no BatchNorm beyond the backbone",
        trials=5,
    ),
    Protocol(
        name="cityscapes_fpn",
        base="fpn_1x",
        changes={
            "set": "cityscapes",
            "score_by": "cityscapes",
            "iterations": 24_000,
            "decay_at": [0.75],
            "batch": 8,
            "learning_rate": 0.01,
            "train_sizes": [800, 832, 864, 896, 928, 960, 992, 1024],
            "test_size": 1024,
            "max_size": 2048,
        },
        data_kind="cityscapes",
        source=f"{_D2} Cityscapes/mask_rcnn_R_50_FPN.yaml, with the BatchNorm of fpn_1x",
        unverified="Detectron2's figure starts from a detector trained on COCO, this one from the backbone alone; "
        "and it reads masks as polygons, where ours are bitmaps of the set's instance images",
    ),
    Protocol(
        name="linear",
        changes={"kind": "linear"},
        data_kind="classes",
        source="facebookresearch/moco@010242b main_lincls.py",
        unverified=", ".join(DEPARTURES["linear"]),
        world_size=1,
    ),
    Protocol(
        name="knn",
        changes={"kind": "knn"},
        data_kind="classes",
        source="facebookresearch/dino@04c0ad9 eval_knn.py",
        unverified=", ".join(DEPARTURES["knn"]),
        world_size=1,
    ),
    Protocol(
        name="low_shot_1",
        changes={"kind": "low_shot", "share": 0.01},
        data_kind="classes",
        source="logistic regression as in facebookresearch/msn@5474d5f logistic_eval.py",
        unverified=", ".join(DEPARTURES["low_shot"]),
        world_size=1,
    ),
    Protocol(
        name="low_shot_10",
        base="low_shot_1",
        changes={"share": 0.1},
        data_kind="classes",
        source="logistic regression as in facebookresearch/msn@5474d5f logistic_eval.py",
        unverified=", ".join(DEPARTURES["low_shot"]),
        world_size=1,
    ),
)

PROTOCOLS: Final[Mapping[str, Protocol]] = {protocol.name: protocol for protocol in _ALL}
