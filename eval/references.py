"""Published figures that may stand beside ours, each with its source. What is not here is unverified."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["REFERENCES", "Reference", "printed_references", "published"]

_SSLIGHT: Final = "saic-fi/SSLight, README"
_SSLIGHT_RECIPE: Final = "R18-FPN 1x, SyncBN, LR 0.02, 90k iterations"
_PIXPRO: Final = "zdaxie/PixPro, README"
_ZOO: Final = "facebookresearch/detectron2, MODEL_ZOO.md"
_MOCO: Final = "facebookresearch/moco@7397dfe, detection/README.md"
_FPN: Final = ("fpn_1x", "fpn_2x", "fpn_1x_4conv1fc", "sslight_fpn_1x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Of one row of a published table."""

    protocols: tuple[str, ...]
    """Ours that it may stand beside (eval.protocols); its own recipe need not be the same."""
    student: str
    initialisation: str
    figures: dict[str, float]
    """Metric to per cent."""
    recipe: str
    """What is known of it."""
    source: str


def _coco(student: str, initialisation: str, box: float, mask: float, recipe: str, source: str) -> Reference:
    figures = {"bbox/AP": box, "segm/AP": mask}
    return Reference(
        protocols=_FPN if "C4" not in recipe else ("c4_1x", "c4_2x"), student=student, initialisation=initialisation,
        figures=figures, recipe=recipe, source=source,
    )  # fmt: skip


def _voc(initialisation: str, ap50: float, ap: float, ap75: float) -> Reference:
    return Reference(
        protocols=("voc_c4_24k",), student="resnet50", initialisation=initialisation,
        figures={"bbox/AP": ap, "bbox/AP50": ap50, "bbox/AP75": ap75},
        recipe="Faster R-CNN R50-C4, 24k iterations, mean of 5 trials", source=_MOCO,
    )  # fmt: skip


def _linear(student: str, initialisation: str, top1: float, recipe: str, source: str) -> Reference:
    return Reference(
        protocols=("linear",), student=student, initialisation=initialisation, figures={"top1": top1}, recipe=recipe,
        source=source,
    )  # fmt: skip


_BINGO: Final = ("linear on ImageNet, teacher R50x2", "haohang96/bingo, image in the README")

REFERENCES: Final = (
    _coco("resnet18", "PCD", 37.4, 34.0, "Mask R-CNN R18-FPN, schedule not stated", "arXiv 2211.00218v3, abstract"),
    _coco(
        "resnet18", "supervised", 33.6, 30.5, "R18-FPN 1x, another framework (PaddlePaddle), recipe unknown",
        "PaddlePaddle/PaddleX, docs/appendix/model_zoo.md",
    ),
    _coco("resnet18", "DINO", 32.7, 30.6, f"{_SSLIGHT_RECIPE}, no distillation", _SSLIGHT),
    _coco("resnet18", "DINO-SSLight", 34.1, 31.8, f"{_SSLIGHT_RECIPE}, no distillation", _SSLIGHT),
    _coco("resnet34", "DINO", 37.6, 34.6, "R34-FPN 1x", _SSLIGHT),
    _coco("resnet34", "SSLight", 38.6, 35.5, "R34-FPN 1x", _SSLIGHT),
    _coco("resnet50", "supervised (MSRA)", 38.6, 35.2, "R50-FPN 1x", _ZOO),
    _coco("resnet50", "supervised (MSRA)", 41.0, 37.2, "R50-FPN 3x", _ZOO),
    _coco("resnet50", "supervised (MSRA)", 36.8, 32.2, "R50-C4 1x", _ZOO),
    _coco("resnet50", "supervised (MSRA)", 39.8, 34.4, "R50-C4 3x", _ZOO),
    _coco("resnet50", "random", 39.9, 36.6, "R50-FPN from scratch, 3x, GN", _ZOO),
    _coco("resnet50", "random", 43.7, 39.6, "R50-FPN from scratch, 9x, GN", _ZOO),
    _coco("resnet50", "random", 32.8, 29.9, "R50-FPN 1x", _PIXPRO),
    _coco("resnet50", "supervised", 39.7, 35.9, "R50-FPN 1x", _PIXPRO),
    _coco("resnet50", "MoCo", 39.4, 35.6, "R50-FPN 1x", _PIXPRO),
    _coco("resnet50", "MoCo v2, 800 epochs", 40.4, 36.4, "R50-FPN 1x", _PIXPRO),
    _voc("supervised", 81.3, 53.5, 58.8),
    _voc("MoCo v2, 200 epochs", 82.4, 57.0, 63.6),
    _voc("MoCo v2, 800 epochs", 82.5, 57.4, 64.0),
    _linear("resnet18", "PCD", 65.1, "linear on ImageNet, teacher not stated", "sciencestack.ai (secondary)"),
    _linear("resnet18", "DINO", 62.2, "linear on ImageNet", _SSLIGHT),
    _linear("resnet18", "SSLight", 65.7, "linear on ImageNet", _SSLIGHT),
    *(
        _linear(student, arm, top1, *_BINGO)
        for arm, figures in {
            "SEED": (63.0, 65.7, 68.2), "DisCo": (65.2, 67.6, 58.9), "BINGO": (65.5, 68.9, 67.1),
        }.items()
        for student, top1 in zip(("resnet18", "resnet34", "mobilenet_v3_large"), figures, strict=True)
    ),
)  # fmt: skip


def published(protocol: str, base: str | None, student: str) -> list[dict[str, Any]]:
    """References for one protocol of a benchmark, as plain data: Reference's fields, and the benchmark's `protocol`.

    Args:
        base: the named protocol that it stands on; by settings of its own alone, nothing published compares.
    """
    rows: list[dict[str, Any]] = (
        [asdict(r) for r in REFERENCES if base in r.protocols and r.student == student] if base else []
    )
    if base and not rows:
        nothing: dict[str, Any] = {
            "student": student,
            "initialisation": "any",
            "figures": {},
            "recipe": base,
            "source": "unverified",
        }
        rows = [nothing]
    return [
        {name: value for name, value in row.items() if name != "protocols"} | {"protocol": protocol} for row in rows
    ]


def printed_references(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """As text: a row for each of `published`, "unverified" where nothing is known."""
    import pandas as pd  # the plan asks for `published`, and must not wait for it

    from eval.metric_names import HEADLINES

    metrics = dict.fromkeys(metric for row in rows for metric in row["figures"]) or {"bbox/AP": None}
    labels = {metric: HEADLINES.get(metric, metric.replace("bbox/", "box ")) for metric in metrics}
    return pd.DataFrame(
        [
            {"initialisation": row["initialisation"], "student": row["student"], "beside": row["protocol"]}
            | {label: _figure(row, metric) for metric, label in labels.items()}
            | {"recipe": row["recipe"], "source": row["source"]}
            for row in rows
        ]
    )


def _figure(row: Mapping[str, Any], metric: str) -> str:
    if not row["figures"]:
        return "unverified"
    return f"{row['figures'][metric]:.1f}" if metric in row["figures"] else "–"
