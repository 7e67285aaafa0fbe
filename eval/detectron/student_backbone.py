"""Any student as a Detectron2 backbone: its maps at strides 4 to 32, and the pyramid P2 to P6 over them.

ResNets do not need it: Detectron2 has its own, which published recipes are written for (see eval.detectron.config).
"""

from typing import Any, Final

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torch import Tensor, nn

from pcd import backbones
from pcd.errors import PCDError
from pcd.students import build_student
from pcd.sync_norm import synchronise_norms

__all__ = ["StudentBackbone", "build_student_fpn_backbone"]

_STRIDES: Final = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class StudentBackbone(Backbone):  # type: ignore[misc]  # Detectron2 is untyped
    """`student` under Detectron2's contract; its tensors keep their names, behind `student.`."""

    def __init__(self, name: str, student: backbones.Backbone) -> None:
        """Raises PCDError if the student lacks a map at one of the strides that a pyramid from P2 on stands on."""
        super().__init__()
        self.student = student
        self._shapes = _shapes(student)
        if lacking := [f"{_STRIDES[stage]}" for stage in _STRIDES if stage not in self._shapes]:
            raise PCDError(
                f'student "{name}" has no map of stride {" and ".join(lacking)}, which a pyramid from P2 to P6 stands '
                "on; choose another student, or pre-train alone: protocols={}"
            )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> res2 … res5, each (B, C, H/s, W/s); H and W are multiples of 32."""
        return self.student.stages(images)

    def output_shape(self) -> dict[str, Any]:
        return self._shapes

    @property
    def size_divisibility(self) -> int:
        return 32


@torch.no_grad()
def _shapes(student: backbones.Backbone) -> dict[str, Any]:
    was_training = student.training
    maps = student.eval().stages(torch.zeros(1, 3, 64, 64))
    student.train(was_training)
    return {name: ShapeSpec(channels=x.shape[1], stride=_STRIDES[name]) for name, x in sorted(maps.items())}


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_student_fpn_backbone(cfg: Any, input_shape: Any) -> nn.Module:
    """`cfg.MODEL.STUDENT.NAME` under an FPN; BatchNorm spans the GPUs where cfg.MODEL.STUDENT.NORM says SyncBN."""
    student = build_student(cfg.MODEL.STUDENT.NAME)
    trunk: nn.Module = StudentBackbone(cfg.MODEL.STUDENT.NAME, student)
    if cfg.MODEL.STUDENT.NORM == "SyncBN":
        trunk = synchronise_norms(trunk, torch.device("cuda"))
    pyramid: nn.Module = FPN(
        trunk, list(_STRIDES), cfg.MODEL.FPN.OUT_CHANNELS, norm=cfg.MODEL.FPN.NORM, top_block=LastLevelMaxPool()
    )
    return pyramid
