"""What publishers' checkpoints are made of: networks by other code than the registry's, and pickled objects."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

State = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


def mlp(
    *widths: int, norm: bool = False, bias: bool = False, last_bias: bool = False, last_norm: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:  # fmt: skip
    layers: list[nn.Module] = []
    for i in range(len(widths) - 2):
        layers.append(nn.Linear(widths[i], widths[i + 1], bias=bias))
        if norm:
            layers.append(nn.BatchNorm1d(widths[i + 1]))
        layers.append(activation())
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias))
    if last_norm:
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)


def trained(network: Network) -> Network:
    """BatchNorms with statistics and affine far from their initial 0 and 1; in eval mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(std=0.3)
            module.get_buffer("running_var").uniform_(0.5, 2)
            module.get_buffer("num_batches_tracked").fill_(7)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
    return network.requires_grad_(False).eval()


def resnet(arch: str) -> tuple[State, Callable[[Tensor], Tensor]]:
    """Tensors without a classifier, and torchvision's own way to the last map."""
    network = torchvision.models.get_model(arch)
    network.fc = nn.Identity()
    trained(network)
    features = nn.Sequential(*list(network.children())[:-2])
    return network.state_dict(), features


def vit(width: int, heads: int, depth: int = 12, tokens: int = 14 * 14) -> tuple[State, Callable[[Tensor], Tensor]]:
    """Tensors by the names that both publishers use, and a ViT written in functions over them."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + tokens, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(depth):
        block = {
            "norm1": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width), "norm2": (width,),
            "mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width),
        }  # fmt: skip
        for layer, shape in block.items():
            shapes |= {f"blocks.{i}.{layer}.weight": shape, f"blocks.{i}.{layer}.bias": shape[:1]}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    state = {name: torch.randn(shape) * 0.05 + ("norm" in name and "weight" in name) for name, shape in shapes.items()}
    return state, lambda images: _vit_maps(state, images, heads, depth)


def _vit_maps(state: State, images: Tensor, heads: int, depth: int) -> Tensor:
    """Pre-norm transformer of arXiv 2010.11929, LayerNorm with eps 1e-6; the class token is dropped at the end."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    patches = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    b, c, h, w = patches.shape
    tokens = patches.flatten(2).transpose(1, 2)  # (B, h*w, C)
    x = torch.cat([state["cls_token"].expand(b, -1, -1), tokens], dim=1) + state["pos_embed"]
    for i in range(depth):
        qkv = linear(f"blocks.{i}.attn.qkv", norm(f"blocks.{i}.norm1", x))
        q, k, v = qkv.view(b, -1, 3, heads, c // heads).permute(2, 0, 3, 1, 4)  # (B, heads, 1 + h*w, C/heads) each
        attention = (q @ k.transpose(-2, -1) * (c // heads) ** -0.5).softmax(dim=-1)
        x = x + linear(f"blocks.{i}.attn.proj", (attention @ v).transpose(1, 2).reshape(b, -1, c))
        hidden = F.gelu(linear(f"blocks.{i}.mlp.fc1", norm(f"blocks.{i}.norm2", x)))
        x = x + linear(f"blocks.{i}.mlp.fc2", hidden)
    return norm("norm", x)[:, 1:].transpose(1, 2).reshape(b, c, h, w)


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def prefixed(network: nn.Module, prefix: str) -> State:
    return under(prefix, network.state_dict())


def renamed(head: nn.Module, names: dict[str, str]) -> State:
    return {names[name.split(".")[0]] + name[1:]: tensor for name, tensor in head.state_dict().items()}


def without_memory(content: Any) -> Any:
    """Zeros that take no memory in place of tensors: for branches that nobody may read, and for tests of names."""
    if isinstance(content, Tensor):
        return torch.zeros(1, dtype=content.dtype, device="cpu").squeeze().expand(content.shape)
    if isinstance(content, dict):
        return {key: without_memory(value) for key, value in content.items()}
    return content


def optimizer(**settings: Any) -> dict[str, Any]:
    momentum = {0: {"momentum_buffer": torch.zeros(1, device="cpu")}}
    return {"state": momentum, "param_groups": [{"lr": 0.1, "params": [0], **settings}]}


# --- objects that are written by the names they have in the publisher's Python, which is not ours


@dataclass
class Global:
    module: str
    name: str


@dataclass
class Object:
    maker: Global
    arguments: tuple[Any, ...]
    state: Any = None
    is_new: bool = False
    """Made by __new__, and not by a call."""


def numpy_dtype() -> Object:
    return Object(Global("numpy", "dtype"), ("f8", False, True), (3, "<", None, None, None, -1, -1, 0))


def numpy_float() -> Object:
    return Object(Global("numpy.core.multiarray", "scalar"), (numpy_dtype(), bytes(8)))


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Object):
            self.save(obj.maker)
            self.save(obj.arguments)
            self.write(pickle.NEWOBJ if obj.is_new else pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


def _dump(obj: Any, file: Any, protocol: int | None = None) -> None:
    _Pickler(file, protocol).dump(obj)


PICKLE = SimpleNamespace(__name__="pickle", Pickler=_Pickler, dump=_dump)
"""What torch.save takes for the pickle module."""
