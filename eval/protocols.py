"""The protocols that the field compares backbones by, each a short difference from a base; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import JsonValue

from eval.finetune_settings import FinetuneSettings
from eval.probes.settings import DEPARTURES, PROBES
from pcd.errors import PCDError, unknown_name
from pcd.settings import Settings

__all__ = ["PROTOCOLS", "Protocol", "departures", "difference", "other_share", "resolve", "with_named_protocols"]

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

_SETTINGS: Final[Mapping[str, type[Settings]]] = {"detector": FinetuneSettings, **PROBES}
"""Kind of a protocol to its settings."""


def resolve(name: str, changes: Mapping[str, Any] | None = None) -> Settings:
    """The settings of the protocol `name`, with `changes` laid over it.

    Raises:
        PCDError: no protocol has this name; the message has the nearest one.
        ValidationError: a change is not valid.
    """
    values = _named(name) | dict(changes or {}) | {"base": name}
    return _SETTINGS[values.get("kind", "detector")].model_validate(values)


def difference(settings: Settings, name: str) -> list[tuple[str, Any, Any]]:
    """Every setting in which `settings` leave the protocol `name`: its name, the protocol's value, the value here."""
    named, here = resolve(name).model_dump(mode="json"), settings.model_dump(mode="json")
    return [(field, named.get(field), value) for field, value in here.items() if named.get(field) != value]


def departures(settings: Settings) -> list[tuple[str, Any, Any]]:
    """The difference from the protocol that the settings name as their base; of one without a base, none."""
    base: str | None = getattr(settings, "base", None)
    return difference(settings, base) if base else []


def other_share(settings: Settings, processes: int) -> str | None:
    """A line where each process takes another number of images than the named protocol means; None where it does not.

    The global batch, which is the parameter, is the same; not so are memory, and which images are padded together.
    """
    base: str | None = getattr(settings, "base", None)
    if base is None or not isinstance(settings, FinetuneSettings):
        return None
    named, meant_for = resolve(base), PROTOCOLS[base].world_size
    assert isinstance(named, FinetuneSettings)
    meant, here = named.batch // meant_for, settings.batch / processes
    if here == meant:
        return None
    ranks = f"{processes} processes" if processes > 1 else "one process"
    return (
        f"{settings.batch} images of a step over {ranks} are {here:g} on each, where {base} means {meant} "
        f"({named.batch} over {meant_for}): memory differs, and which images are padded together"
    )


def with_named_protocols(protocols: Mapping[str, Any]) -> dict[str, Any]:
    """A profile's `protocols`, each filled up with what it is named after: `base`, or else its own name.

    `fpn_1x: {}` is the named protocol; `mine: {base: fpn_1x, iterations: 1000}` departs from it; a block that neither
    has a base nor a protocol's name is taken as it stands. `world_size: 4` scales a detector's protocol to so many
    processes by Detectron2's reference-world-size rule.

    Raises ValueError if there is no such base, or the rule leaves no whole batch.
    """
    return {
        name: _filled(name, block or {}) if isinstance(block, Mapping | None) else block
        for name, block in protocols.items()
    }


def _filled(name: str, block: Mapping[str, Any]) -> dict[str, Any]:
    base = block.get("base", name if name in PROTOCOLS else None)
    if base is None:
        if not block:  # it can only mean a named one
            raise ValueError(unknown_name("protocol", name, PROTOCOLS))
        return dict(block)
    try:
        values = _named(str(base)) | dict(block) | {"base": base}
    except PCDError as error:
        raise ValueError(error) from None
    world_size = values.pop("world_size", None)
    return values if world_size is None else values | _scaled(values, PROTOCOLS[base].world_size, world_size)


def _named(name: str) -> dict[str, Any]:
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    return (_named(protocol.base) if protocol.base else {}) | dict(protocol.changes)


def _scaled(values: Mapping[str, Any], reference: int, world_size: Any) -> dict[str, Any]:
    """Detectron2's rule: a process keeps its images, and what it sees in all stays the same.

    Batch and learning rate grow as the processes do; iterations and warm-up fall. See `auto_scale_workers` in
    facebookresearch/detectron2@v0.6 detectron2/engine/defaults.py.
    """
    if values.get("kind", "detector") != "detector":
        raise ValueError("world_size scales detectors; a probe runs in one process")
    if not isinstance(world_size, int) or world_size < 1:
        raise ValueError(f"world_size is the number of processes to scale the protocol to, got {world_size!r}")
    fields = FinetuneSettings.model_fields
    batch, rate, iterations, warmup = (
        values.get(name, fields[name].default) for name in ("batch", "learning_rate", "iterations", "warmup_iterations")
    )
    if batch * world_size % reference:
        raise ValueError(
            f"a batch of {batch}, meant for {reference} processes, leaves {world_size} no whole number of images"
        )
    return {
        "batch": batch * world_size // reference,
        "learning_rate": rate * world_size / reference,
        "iterations": round(iterations * reference / world_size),
        "warmup_iterations": round(warmup * reference / world_size),
    }
