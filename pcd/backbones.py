"""The students' backbones: one contract over torchvision's and timm's networks, under those libraries' tensor names."""

from abc import abstractmethod
from difflib import get_close_matches
from typing import Any, Final

import torch
from torch import Tensor, nn

from pcd.errors import PCDError

__all__ = ["Backbone", "TimmBackbone", "TorchvisionBackbone"]

_STAGES: Final = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}


class Backbone(nn.Module):
    """A network without pooling and classifier; images of any size that is a multiple of 32."""

    channels: int
    """Of the deepest map, at stride 32."""

    @abstractmethod
    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """The last map at each of the strides 4, 8, 16, 32 that the network has, named res2, res3, res4, res5.

        These are Detectron2's names. Only res5 is promised.
        """

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H/32, W/32)."""
        return self.stages(images)["res5"]


class TorchvisionBackbone(Backbone):
    """Parts of a torchvision network, passed in their order, under the names they have there."""

    def __init__(self, network: nn.Module, parts: tuple[str, ...], channels: int) -> None:
        super().__init__()
        for part in parts:
            self.add_module(part, network.get_submodule(part))
        self.channels = channels

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        maps, x = {}, images
        for part in self.children():
            for layer in part if isinstance(part, nn.Sequential) else (part,):
                x = layer(x)
                stride = images.shape[-1] // x.shape[-1]
                if stride in _STAGES:
                    maps[_STAGES[stride]] = x
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H/32, W/32), without a look at any size, so that it can be traced for all."""
        x = images
        for part in self.children():
            x = part(x)
        return x


class TimmBackbone(Backbone):
    """What `timm.create_model(name, features_only=True)` gives, under the tensor names it has there.

    Its deepest map is that of timm's last stage: what timm counts to the classifier (ConvNeXt's last norm,
    EfficientNet's conv_head) is left out. Nothing is downloaded.
    """

    def __init__(self, name: str) -> None:
        """`name` as timm has it. Raises PCDError if it is unknown or does not keep a Backbone's contract."""
        super().__init__()
        self.network = _timm_network(name)
        strides, channels = self.network.feature_info.reduction(), self.network.feature_info.channels()
        if strides[-1] != 32:
            raise _unusable(name, f"its deepest map has stride {strides[-1]}, not 32")
        self.channels: int = channels[-1]
        self._stages = {_STAGES[stride]: i for i, stride in enumerate(strides) if stride in _STAGES}
        self._widths: list[int] = channels
        self.register_state_dict_post_hook(_drop_network_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_network_prefix)  # type: ignore[no-untyped-call]
        _check_contract(self, name)

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        maps: list[Tensor] = self.network(images)
        return {name: _channels_first(maps[i], self._widths[i]) for name, i in self._stages.items()}


def _timm_network(name: str) -> Any:
    import timm  # late: torchvision's students do without it

    # Names of timm's own alone: with its prefixes (hf-hub:) create_model would ask the network.
    names = timm.list_models()
    if name not in names:
        nearest = get_close_matches(name.partition(".")[0], names, n=1, cutoff=0.5)
        hint = f'did you mean "timm:{nearest[0]}"?' if nearest else "there is none like it;"
        raise PCDError(f'unknown student "timm:{name}": {hint} timm.list_models() lists all')
    return timm.create_model(name, pretrained=False, features_only=True)


def _check_contract(backbone: TimmBackbone, name: str) -> None:
    """Once through, with an image that is neither square nor of the model's usual size, as fine-tuning brings them."""
    try:
        maps = backbone.eval()(torch.zeros(1, 3, 64, 96))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise _unusable(name, f"it does not take images of any size ({_first_line(error)})") from None
    if maps.shape != (1, backbone.channels, 2, 3):
        raise _unusable(name, f"its map of 64x96 pixels is {tuple(maps.shape)}, not {(1, backbone.channels, 2, 3)}")
    parameters = dict(backbone.network.named_parameters())
    gradients = torch.autograd.grad(maps.sum(), list(parameters.values()), allow_unused=True)
    idle = [n for n, gradient in zip(parameters, gradients, strict=True) if gradient is None]
    if idle:  # they would be exported as random as they began, and several GPUs would wait for their gradients
        raise _unusable(name, f"{len(idle)} of its tensors do not reach the deepest map (first: {idle[0]})")
    backbone.train()


def _unusable(name: str, reason: str) -> PCDError:
    return PCDError(f'student "timm:{name}" cannot be used: {reason}; choose another model')


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _channels_first(maps: Tensor, channels: int) -> Tensor:
    """Some of timm's networks give (B, H, W, C)."""
    return maps if maps.shape[1] == channels else maps.permute(0, 3, 1, 2)


def _drop_network_prefix(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}network.")]:
        state[prefix + name.removeprefix(f"{prefix}network.")] = state.pop(name)


def _add_network_prefix(_module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}network.{name.removeprefix(prefix)}"] = state.pop(name)
