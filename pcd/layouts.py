"""How networks in checkpoints are laid out, as plain data: read by the registry without importing torch."""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["HeadLayout", "ResNetLayout", "TrunkLayout", "ViTLayout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetLayout:
    """A ResNet, its tensors named as torchvision names them."""

    block: Literal["basic", "bottleneck"]
    layers: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    """Base channels of the four stages; a bottleneck block puts out four times as many."""

    @property
    def out_channels(self) -> int:
        return self.channels[-1] * (4 if self.block == "bottleneck" else 1)

    @property
    def student_name(self) -> str:
        """Under which pcd.students builds it: torchvision's name, or resnet:basic:2,2,2,2:24,48,96,192."""
        if self in _NAMED:
            return _NAMED[self]
        numbers = (",".join(map(str, four)) for four in (self.layers, self.channels))
        return ":".join(("resnet", self.block, *numbers))

    @classmethod
    def from_student_name(cls, name: str) -> "ResNetLayout":
        """Of a name with its numbers. Raises ValueError on any other."""
        kind, block, layers, channels = name.split(":")
        numbers = [tuple(int(number) for number in four.split(",")) for four in (layers, channels)]
        if kind != "resnet" or block not in ("basic", "bottleneck") or any(len(four) != 4 for four in numbers):
            raise ValueError(name)
        if min(min(four) for four in numbers) < 1:
            raise ValueError(name)
        return cls(block=block, layers=numbers[0], channels=numbers[1])  # type: ignore[arg-type]


_WIDE: Final = (64, 128, 256, 512)
_NAMED: Final = {
    ResNetLayout(block="basic", layers=(2, 2, 2, 2), channels=_WIDE): "resnet18",
    ResNetLayout(block="basic", layers=(3, 4, 6, 3), channels=_WIDE): "resnet34",
    ResNetLayout(block="bottleneck", layers=(3, 4, 6, 3), channels=_WIDE): "resnet50",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTLayout:
    """A vision transformer with a class token, its tensors named as timm names them; LayerNorm with eps 1e-6."""

    width: int
    depth: int
    heads: int
    """Does not show in any tensor's shape: MoCo v3's ViT-S has 12, DINO's has 6."""
    patch: int = 16
    """Side of a patch, pixels."""
    size: int = 224
    """Side of the image that the position embedding was made for, pixels."""

    @property
    def out_channels(self) -> int:
        return self.width


TrunkLayout = ResNetLayout | ViTLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLayout:
    """A teacher's MLP head, layer by layer, as its publisher builds it."""

    widths: tuple[int, ...]
    """Input, hidden and output channels; the input alone: no head, the teacher's map is its trunk's."""
    bias: bool
    """Whether the Linear layers carry one."""
    norm: bool
    """BatchNorm with affine after each hidden Linear."""
    last_norm: Literal["none", "plain", "external"]
    """`plain`: a BatchNorm without affine ends the head (MoCo v3, SimSiam); `external`: it stands beside the head,
    inside the loss (Barlow Twins)."""
    last_bias: bool | None = None
    """Of the last Linear, where it differs from `bias`."""
    activation: Literal["relu", "gelu"] = "relu"
    dense: bool = False
    """Made of 1x1 convolutions and trained on maps (DenseCL): it needs no adaptor."""
    layer_names: tuple[str, ...] = ()
    """The checkpoint's names of the layers that hold tensors, in order; empty: their numbers in an nn.Sequential."""
