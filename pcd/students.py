"""Student backbones, and the whole student of a pre-training run."""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from pcd.attention import PixelAttention
from pcd.errors import unknown_name
from pcd.heads import build_pixel_mlp
from pcd.layouts import HeadLayout

__all__ = ["STUDENTS", "ResNetBackbone", "Student", "build_student"]


class ResNetBackbone(ResNet):  # type: ignore[misc]
    """torchvision's ResNet without pooling and classifier; the names of its tensors are torchvision's."""

    def __init__(self, layers: list[int]) -> None:
        super().__init__(BasicBlock, layers)
        self.fc = nn.Identity()
        self.channels = 512 * BasicBlock.expansion

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H/32, W/32)."""
        return self.stages(images)["res5"]

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """The maps res2, res3, res4, res5 at strides 4, 8, 16, 32, named as Detectron2 names them."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = {}
        for name, layer in zip(
            ("res2", "res3", "res4", "res5"), (self.layer1, self.layer2, self.layer3, self.layer4), strict=True
        ):
            maps[name] = x = layer(x)
        return maps


STUDENTS: dict[str, Callable[[], ResNetBackbone]] = {
    "resnet18": lambda: ResNetBackbone([2, 2, 2, 2]),
    "resnet34": lambda: ResNetBackbone([3, 4, 6, 3]),
}
"""Name to backbone; torchvision's own initialisation (He, fan out), drawn from torch's current seed."""


def build_student(name: str) -> ResNetBackbone:
    """A freshly initialised backbone. Raises PCDError on an unknown name, with the nearest valid one."""
    if name not in STUDENTS:
        raise unknown_name("student", name, STUDENTS)
    return STUDENTS[name]()


class Student(nn.Module):
    """Backbone, self-attention plug-in, projector and predictor.

    Projector and predictor are shaped like the teacher's: for MoCo v3 [c -> hidden -> out] and [out -> hidden -> out]
    (allo-rene/pcd@6b0ad4d). Only the backbone is exported.
    """

    def __init__(self, backbone: ResNetBackbone, head: HeadLayout, attention_heads: int | None) -> None:
        """`attention_heads`: None leaves the plug-in out."""
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
