"""The heads of a C4 detector over those ResNets that Detectron2's own leave out, with the BatchNorm that MoCo adds."""

from typing import Any, Final

from detectron2.layers import get_norm
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn

__all__ = ["EXTRA_NORM", "StudentRes5ROIHeads"]

EXTRA_NORM: Final = "norm"
"""Name of the BatchNorm behind res5's blocks, the one part of res5 that no backbone brings."""

_BASIC_BLOCKS: Final = {18: 2, 34: 3}
"""Depth of a ResNet of basic blocks to how many its last stage has."""


@ROI_HEADS_REGISTRY.register()
class StudentRes5ROIHeads(Res5ROIHeads):  # type: ignore[misc]  # Detectron2 is untyped
    """Detectron2's Res5ROIHeads, whose res5 is that of the backbone's depth.

    Detectron2's own builds a ResNet-50's whatever the depth. With `cfg.MODEL.ROI_HEADS.EXTRA_NORM` a BatchNorm follows
    the blocks (facebookresearch/moco@3402035 detection/train_net.py, Res5ROIHeadsExtraNorm).
    """

    @classmethod
    def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
        resnet = cfg.MODEL.RESNETS
        if resnet.DEPTH in _BASIC_BLOCKS:
            out = 8 * resnet.RES2_OUT_CHANNELS
            number = _BASIC_BLOCKS[resnet.DEPTH]
            blocks = ResNet.make_stage(
                BasicBlock, number, stride_per_block=[2] + [1] * (number - 1), in_channels=out // 2, out_channels=out,
                norm=resnet.NORM,
            )  # fmt: skip
            res5 = nn.Sequential(*blocks)
        else:
            res5, out = super()._build_res5_block(cfg)
        if cfg.MODEL.ROI_HEADS.EXTRA_NORM:
            res5.add_module(EXTRA_NORM, get_norm(resnet.NORM, out))
        return res5, out
