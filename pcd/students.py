"""The students by name, and the whole student of a pre-training run."""

from collections.abc import Callable
from typing import Final

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, shufflenet_v2_x1_0
from torchvision.models.resnet import BasicBlock, Bottleneck

from pcd.attention import PixelAttention
from pcd.backbones import Backbone, MobileNetV3Backbone, ResNetBackbone, ShuffleNetV2Backbone, TimmBackbone
from pcd.heads import build_pixel_mlp
from pcd.layouts import HeadLayout
from pcd.settings import TIMM_PREFIX, check_student_name

__all__ = ["STUDENTS", "Student", "build_student"]

STUDENTS: Final[dict[str, Callable[[], Backbone]]] = {
    "resnet18": lambda: ResNetBackbone(BasicBlock, [2, 2, 2, 2]),
    "resnet34": lambda: ResNetBackbone(BasicBlock, [3, 4, 6, 3]),
    "resnet50": lambda: ResNetBackbone(Bottleneck, [3, 4, 6, 3]),
    "mobilenet_v3_large": lambda: MobileNetV3Backbone(mobilenet_v3_large()),
    "shufflenet_v2_x1_0": lambda: ShuffleNetV2Backbone(shufflenet_v2_x1_0()),
}
"""Name to backbone, torchvision's own initialisation. The names are those of pcd.settings.STUDENT_NAMES.

The released code has ResNet-18, ResNet-34 and MobileNetV3-Large (allo-rene/pcd@6b0ad4d); the others are ours.
"""


def build_student(name: str) -> Backbone:
    """A freshly initialised backbone, drawn from torch's current seed; never downloads.

    Args:
        name: one of STUDENTS, or `timm:` and the name of a timm model whose deepest map has stride 32.

    Raises:
        PCDError: an unknown name, with the nearest valid one, or a timm model that gives no such map.
    """
    check_student_name(name)
    if name.startswith(TIMM_PREFIX):
        return TimmBackbone(name.removeprefix(TIMM_PREFIX))
    return STUDENTS[name]()


class Student(nn.Module):
    """Backbone, self-attention plug-in, projector and predictor.

    Projector and predictor are shaped like the teacher's: for MoCo v3 [c -> hidden -> out] and [out -> hidden -> out]
    (allo-rene/pcd@6b0ad4d). Only the backbone is exported.
    """

    def __init__(self, backbone: Backbone, head: HeadLayout, attention_heads: int | None) -> None:
        """`attention_heads`: None leaves the plug-in out. Raises ValueError if they do not split the channels."""
        super().__init__()
        *hidden, out = head.widths[1:]
        self.backbone = backbone
        self.attention = PixelAttention(backbone.channels, attention_heads) if attention_heads else nn.Identity()
        self.projector = build_pixel_mlp((backbone.channels, *hidden, out))
        self.predictor = build_pixel_mlp((out, *hidden, out))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, out, H/32, W/32), not normalised."""
        maps: Tensor = self.predictor(self.projector(self.attention(self.backbone(images))))
        return maps
