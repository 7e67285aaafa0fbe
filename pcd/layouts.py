"""How networks in checkpoints are laid out, as plain data: read by the registry without importing torch."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["HeadLayout", "TrunkLayout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkLayout:
    """A ResNet, its tensors named as torchvision names them."""

    block: Literal["basic", "bottleneck"]
    layers: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    """Base channels of the four stages; a bottleneck block puts out four times as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLayout:
    """A teacher's MLP head, layer by layer, as its publisher builds it."""

    widths: tuple[int, ...]
    """Input, hidden and output channels."""
    bias: bool
    """Whether the Linear layers carry one."""
    norm: bool
    """BatchNorm with affine after each hidden Linear."""
    last_norm: Literal["none", "plain"]
    """`plain`: a BatchNorm without affine ends the head (MoCo v3, SimSiam)."""
