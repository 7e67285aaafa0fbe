"""The students by name, and the whole student of a pre-training run."""

from collections.abc import Callable
from typing import Final

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, resnet18, resnet34, resnet50, shufflenet_v2_x1_0

from pcd.attention import PixelAttention
from pcd.backbones import Backbone, TimmBackbone, TorchvisionBackbone
from pcd.heads import build_pixel_mlp
from pcd.layouts import ResNetLayout
from pcd.settings import RESNET_PREFIX, TIMM_PREFIX, check_student_name
from pcd.teachers.trunks import build_trunk

__all__ = ["STUDENTS", "Student", "build_student"]

_RESNET: Final = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_RESNET_BY_NUMBERS: Final = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
_SHUFFLENET: Final = ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5")


def _mobilenet_v3() -> Backbone:
    network = mobilenet_v3_large()
    for module in network.features.modules():
        if isinstance(module, nn.BatchNorm2d):
            # The released code's; torchvision's 0.01 leaves a short run's statistics at their start.
            module.momentum = 0.1
    return TorchvisionBackbone(network, ("features",), channels=960)


STUDENTS: Final[dict[str, Callable[[], Backbone]]] = {
    "resnet18": lambda: TorchvisionBackbone(resnet18(), _RESNET, channels=512),
    "resnet34": lambda: TorchvisionBackbone(resnet34(), _RESNET, channels=512),
    "resnet50": lambda: TorchvisionBackbone(resnet50(), _RESNET, channels=2048),
    "mobilenet_v3_large": _mobilenet_v3,
    "shufflenet_v2_x1_0": lambda: TorchvisionBackbone(shufflenet_v2_x1_0(), _SHUFFLENET, channels=1024),
}
"""Name to backbone, torchvision's own initialisation. The names are those of pcd.settings.STUDENT_NAMES.

ResNet-18, ResNet-34 and MobileNetV3-Large with its last 1x1 convolution are the released code's students
(allo-rene/pcd@6b0ad4d: pcd/student_model). Its ShuffleNetV2 also ends behind the last 1x1 convolution, but no student
there uses it: that one and ResNet-50 are ours.
"""


def build_student(name: str) -> Backbone:
    """A freshly initialised backbone, drawn from torch's current seed; never downloads.

    Args:
        name: one of STUDENTS; `timm:` and the name of a timm model whose deepest map has stride 32; or a ResNet by its
            numbers, such as a teacher's own trunk (pcd.layouts.ResNetLayout.student_name).

    Raises:
        PCDError: an unknown name, with the nearest valid one, or a timm model that gives no such map.
    """
    check_student_name(name)
    if name.startswith(TIMM_PREFIX):
        return TimmBackbone(name.removeprefix(TIMM_PREFIX))
    if name.startswith(RESNET_PREFIX):
        layout = ResNetLayout.from_student_name(name)
        return TorchvisionBackbone(build_trunk(layout), _RESNET_BY_NUMBERS, channels=layout.out_channels)
    return STUDENTS[name]()


class Student(nn.Module):
    """Backbone, self-attention plug-in, projector and predictor.

    Only the backbone is exported.
    """

    def __init__(
        self,
        backbone: Backbone,
        projector: tuple[int, ...],
        predictor: tuple[int, ...],
        attention_heads: int | None,
        *,
        pooled: bool = False,
    ) -> None:
        """Widths of the two MLPs are the teacher's to say: `TeacherEntry.projector_widths` and `.predictor_widths`.

        Args:
            projector, predictor: empty ones leave the MLP out.
            attention_heads: None leaves the plug-in out. Raises ValueError if they do not split the channels.
            pooled: the map is averaged over its pixels in front of the MLPs, which then see one vector of each image.
        """  # fmt: skip
        super().__init__()
        self.backbone = backbone
        self.attention = PixelAttention(backbone.channels, attention_heads) if attention_heads else nn.Identity()
        self.projector = build_pixel_mlp(projector)
        self.predictor = build_pixel_mlp(predictor)
        self.pooled = pooled

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, out, H/32, W/32), or (B, out, 1, 1) if pooled; not normalised."""
        maps: Tensor = self.attention(self.backbone(images))
        if self.pooled:
            maps = maps.mean(dim=(2, 3), keepdim=True)
        out: Tensor = self.predictor(self.projector(maps))
        return out
