"""MODEL_CARD.md: what lies beside an exported backbone, so that it explains itself wherever it is copied."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import jinja2

from pcd.arms import ARMS
from pcd.export import DETECTRON2_RESNETS
from pcd.settings import TIMM_PREFIX, PretrainSettings, flat_settings
from pcd.stage import Spec, write_text
from pcd.teachers.registry import TEACHERS
from pcd.views import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["loading_lines", "write_model_card"]

_PACKAGES: Final = ("pcd-benchmark", "torch", "torchvision", "timm", "safetensors")
_ZOO: Final = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
_LOAD: Final = 'model.load_state_dict(load_file("backbone.safetensors"))'


def write_model_card(spec: Spec, settings: PretrainSettings, figures: Mapping[str, float | int | str]) -> None:
    """Write MODEL_CARD.md into `spec.out`: method settings with their marks, teacher and its terms, data, figures.

    Args:
        figures: what the run ended with, by readable names; those of its last line of metrics are added.
    """
    teacher = TEACHERS[spec.settings["teacher"]]
    fetched = json.loads((spec.inputs["teacher"] / "result.json").read_text())
    data = json.loads((spec.inputs["data"] / "data.json").read_text())
    last = json.loads(spec.metrics.path.read_text().splitlines()[-1])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (Markdown, no HTML)
    )  # fmt: skip
    card = environment.get_template("model_card.md.j2").render(
        student=settings.student,
        method=next(arm for arm in ARMS.values() if arm.objective == settings.objective),
        seed=spec.settings["seed"],
        teacher=teacher,
        teacher_sha256=fetched.get("sha256"),
        data=data,
        settings=flat_settings(settings),
        figures={"final " + k: v for k, v in last.items() if k not in ("step", "total", "time")} | dict(figures),
        versions={name: _version(name) for name in _PACKAGES},
        lines=loading_lines(settings.student),
    )
    write_text(spec.out / "MODEL_CARD.md", card)


def loading_lines(student: str) -> dict[str, tuple[str, str]]:
    """Library to the imports and the one line that load the files, every tensor matched or an error."""
    if student.startswith(TIMM_PREFIX):
        name = student.removeprefix(TIMM_PREFIX)
        return {"timm": _timm_line(name, "features_only=True")}
    classifier = "classifier" if student.startswith("mobilenet") else "fc"
    build = f"model = torchvision.models.{student}(); model.{classifier} = torch.nn.Identity()"
    lines = {"torchvision": ("import torch, torchvision\nfrom safetensors.torch import load_file", f"{build}; {_LOAD}")}
    if student in DETECTRON2_RESNETS:
        lines["timm"] = _timm_line(student, "num_classes=0")
        lines["Detectron2"] = (
            f'from detectron2 import model_zoo\n\ncfg = model_zoo.get_config("{_ZOO}")',
            _detectron2_line(student),
        )
    return lines


def _timm_line(name: str, kind: str) -> tuple[str, str]:
    return "import timm", f'model = timm.create_model("{name}", {kind}, checkpoint_path="backbone.safetensors")'


def _detectron2_line(student: str) -> str:
    depth, channels = DETECTRON2_RESNETS[student]
    changes: dict[str, Any] = {
        "MODEL.WEIGHTS": "backbone_detectron2.pth",
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": channels,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [round(255 * x, 4) for x in IMAGENET_MEAN],
        "MODEL.PIXEL_STD": [round(255 * x, 4) for x in IMAGENET_STD],
    }
    return f"cfg.merge_from_list({[part for change in changes.items() for part in change]})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
