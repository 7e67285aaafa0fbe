"""Checkpoints as each publisher writes them: written from the publishers' code, apart from the registry.

Trunks are torchvision's ResNets and a ViT of functions, heads are written out layer by layer, and around them stands
what training scripts save along: other encoders, predictors, queues, optimizers, arguments.
"""

import argparse
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

State = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


@dataclass
class Publication:
    content: Any
    """What the publisher's script hands to torch.save."""
    trunk: Callable[[Tensor], Tensor]
    """(B, 3, H, W) -> (B, C, h, w), by other code than the registry's."""
    head: nn.Module
    """Over vectors, with its last norm; over maps where it is dense; Identity where there is none."""
    has_last_norm: bool = False
    is_dense: bool = False
    is_old_format: bool = False
    """Written by torch.save from before 1.6, or as OpenMMLab publishes to this day: no zip file."""

    def save(self, path: Path) -> None:
        torch.save(
            self.content, path, pickle_module=_PICKLE, pickle_protocol=2,
            _use_new_zipfile_serialization=not self.is_old_format,
        )  # fmt: skip


def publish(name: str, *, hollow: bool = False) -> Publication:
    """`hollow`: names, shapes and types are right, but the tensors take no memory and are zero."""
    if hollow:
        with torch.device("meta"):
            publication = _PUBLISHERS[name]()
        publication.content = _hollow(publication.content)
        return publication
    return _PUBLISHERS[name]()


# --- MoCo v3: moco/builder.py, vits.py, main_moco.py


def _mocov3_resnet50() -> Publication:
    trunk, maps = _resnet("resnet50")
    head = _trained(_mlp(2048, 4096, 256, norm=True, last_norm=True))
    momentum = {**trunk, **_prefixed(head, "fc.")}
    predictor = _mlp(256, 4096, 256, norm=True)
    return Publication(_moco_file(momentum, predictor, "resnet50"), maps, head, has_last_norm=True)


def _mocov3_vit(width: int) -> Publication:
    trunk, maps = _vit(width, heads=12)
    head = _trained(_mlp(width, 4096, 4096, 256, norm=True, last_norm=True))
    momentum = {**trunk, **_prefixed(head, "head.")}
    predictor = _mlp(256, 4096, 256, norm=True, last_norm=True)
    return Publication(_moco_file(momentum, predictor, "vit"), maps, head, has_last_norm=True)


def _moco_file(momentum: State, predictor: nn.Module, arch: str) -> dict[str, Any]:
    state = {
        **_under("module.base_encoder.", _hollow(momentum)),
        **_under("module.momentum_encoder.", momentum),
        **_hollow(_prefixed(predictor, "module.predictor.")),
    }
    return {"epoch": 300, "arch": arch, "state_dict": state, "optimizer": _optimizer(), "scaler": {"scale": 65536.0}}


# --- MoCo v2: moco/builder.py, main_moco.py


def _mocov2() -> Publication:
    trunk, maps = _resnet("resnet50")
    head = _trained(_mlp(2048, 2048, 128, bias=True, last_bias=True))
    encoder_k = {**trunk, **_prefixed(head, "fc.")}
    queue = {"module.queue": torch.zeros(1).expand(128, 65536), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    state = {**_under("module.encoder_q.", _hollow(encoder_k)), **_under("module.encoder_k.", encoder_k), **queue}
    content = {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": _optimizer()}
    return Publication(content, maps, head, is_old_format=True)


# --- SwAV: src/resnet50.py; a flat dictionary


def _swav() -> Publication:
    trunk, maps = _resnet("resnet50")
    head = _trained(_mlp(2048, 2048, 128, norm=True, bias=True, last_bias=True))
    names = {**trunk, **_prefixed(head, "projection_head."), "prototypes.weight": torch.randn(3000, 128)}
    return Publication(_under("module.", names), maps, head, is_old_format=True)


# --- Barlow Twins: main.py; VICReg: main_vicreg.py


def _barlow() -> Publication:
    trunk, maps = _resnet("resnet50")
    projector = _trained(_mlp(2048, 8192, 8192, 8192, norm=True))
    bn = _trained(nn.BatchNorm1d(8192, affine=False))
    state = {
        **_under("module.backbone.", trunk),
        **_prefixed(projector, "module.projector."),
        **_prefixed(bn, "module.bn."),
    }
    filters = {"weight_decay_filter": _Global("__main__", "exclude_bias_and_norm")}
    filters |= {"lars_adaptation_filter": _Global("__mp_main__", "exclude_bias_and_norm")}
    content = {"epoch": 1000, "model": state, "optimizer": _optimizer(**filters)}
    return Publication(content, maps, nn.Sequential(*projector, bn).eval(), has_last_norm=True)


def _vicreg() -> Publication:
    trunk, maps = _resnet("resnet50")
    projector = _trained(_mlp(2048, 8192, 8192, 8192, norm=True, bias=True, last_bias=False))
    state = {**_under("module.backbone.", trunk), **_prefixed(projector, "module.projector.")}
    filters = {"weight_decay_filter": _Global("__main__", "exclude_bias_and_norm")}
    return Publication({"epoch": 1000, "model": state, "optimizer": _optimizer(**filters)}, maps, projector)


# --- BYOL: mmselfsup's byol.py, nonlinear_neck.py, ema.py; revisitAIRL's siamese_network.py, mlp.py


def _byol_openmmlab() -> Publication:
    trunk, maps = _resnet("resnet50")
    head = _trained(_mlp(2048, 4096, 256, norm=True, bias=True, last_bias=False))
    neck = _renamed(head, {"0": "fc0", "1": "bn0", "3": "fc1"})
    state = {
        **_under("backbone.", _hollow(trunk)),
        **_under("neck.", _hollow(neck)),
        "head.predictor.fc0.weight": torch.zeros(1).expand(4096, 256),
        "target_net.steps": torch.tensor(100),
        **_under("target_net.module.0.", trunk),
        **_under("target_net.module.1.", neck),
    }
    return Publication(_openmmlab_file(state), maps, head, is_old_format=True)


def _byol_airl() -> Publication:
    trunk, maps = _resnet("resnet50")
    head = _trained(_mlp(2048, 4096, 256, norm=True, bias=True, last_bias=True))
    online_only = _mlp(2048, 4096, 256, 4096, 256, norm=True, bias=True, last_bias=True)
    state = {
        **_under("module.online_encoder.", _hollow({**trunk, **_prefixed(online_only, "fc.")})),
        **_under("module.target_encoder.", {**trunk, **_prefixed(head, "fc.")}),
    }
    extras = {"classifier": {"module.weight": torch.zeros(1).expand(1000, 2048)}, "optimizer_cls": _optimizer()}
    return Publication({"start_epoch": 200, "model": state, "optimizer": _optimizer(), **extras}, maps, head)


# --- SimSiam: simsiam/builder.py


def _simsiam() -> Publication:
    trunk, maps = _resnet("resnet50")
    head = _trained(_mlp(2048, 2048, 2048, 2048, norm=True, last_bias=True, last_norm=True))
    predictor = _mlp(2048, 512, 2048, norm=True, last_bias=True)
    state = _under("module.encoder.", {**trunk, **_prefixed(head, "fc.")})
    state |= _hollow(_prefixed(predictor, "module.predictor."))
    content = {"epoch": 100, "arch": "resnet50", "state_dict": state, "optimizer": _optimizer()}
    return Publication(content, maps, head, has_last_norm=True)


# --- DINO: vision_transformer.py, main_dino.py; for the ResNet's head dino#189 and RCDM's get_ssl_models.py


def _dino_resnet50(wrapper: str = "") -> Publication:
    trunk, maps = _resnet("resnet50")
    mlp = _trained(_mlp(2048, 4096, 256, norm=True, bias=True, last_bias=True, activation=nn.GELU))
    last = {"head.last_layer.weight": torch.zeros(1).expand(60000, 256)}
    teacher = {**_under("backbone.", trunk), **_prefixed(mlp, "head.mlp."), **last}
    return Publication(_dino_file(_under(wrapper, teacher)), maps, mlp)


def _dino_vits16() -> Publication:
    trunk, maps = _vit(384, heads=6)
    mlp = _trained(_mlp(384, 2048, 2048, 256, bias=True, last_bias=True, activation=nn.GELU))
    last = {
        "head.last_layer.weight_g": torch.zeros(1).expand(65536, 1),
        "head.last_layer.weight_v": torch.zeros(1).expand(65536, 256),
    }
    return Publication(_dino_file({**_under("backbone.", trunk), **_prefixed(mlp, "head.mlp."), **last}), maps, mlp)


def _dino_file(teacher: State) -> dict[str, Any]:
    scheduled = _numpy_float()  # what numpy's schedule leaves in the optimizer
    return {
        "student": _under("module.", _hollow(teacher)),
        "teacher": teacher,
        "optimizer": _optimizer(lr=scheduled, weight_decay=scheduled),
        "epoch": 800,
        "args": argparse.Namespace(arch="resnet50", lr=0.3, use_fp16=True, local_crops_scale=(0.05, 0.14)),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "fp16_scaler": {"scale": 65536.0},
    }


# --- DenseCL: tools/extract_backbone_weights.py; mmselfsup's densecl.py, densecl_neck.py


def _densecl() -> Publication:
    trunk, maps = _resnet("resnet50")
    return Publication({"state_dict": trunk, "author": "OpenSelfSup"}, maps, nn.Identity(), is_old_format=True)


def _densecl_openmmlab() -> Publication:
    trunk, maps = _resnet("resnet50")
    dense = _trained(nn.Sequential(nn.Conv2d(2048, 2048, 1), nn.ReLU(), nn.Conv2d(2048, 128, 1)))
    neck = {**_hollow(_prefixed(_mlp(2048, 2048, 128, bias=True, last_bias=True), "mlp.")), **_prefixed(dense, "mlp2.")}
    encoder_q = {**_under("0.", trunk), **_under("1.", neck)}
    state = {
        **_under("encoder_q.", _hollow(encoder_q)),
        **_under("encoder_k.module.", encoder_q),
        **_under("backbone.", _hollow(trunk)),
        "queue": torch.zeros(1).expand(128, 65536),
        "queue2": torch.zeros(1).expand(128, 65536),
    }
    return Publication(_openmmlab_file(state), maps, dense, is_dense=True, is_old_format=True)


def _openmmlab_file(state: State) -> dict[str, Any]:
    buffer = _Global("mmengine.logging.history_buffer", "HistoryBuffer")
    array = _Object(
        _Global("numpy.core.multiarray", "_reconstruct"), (_Global("numpy", "ndarray"), (0,), b"b"),
        (1, (2,), _numpy_dtype(), False, bytes(16)),
    )  # fmt: skip
    methods = {"mean": _Object(_Global("__builtin__", "getattr"), (buffer, "mean"))}
    history = _Object(
        buffer, (), {"max_length": 10, "_log_history": array, "_statistics_methods": methods}, is_new=True
    )
    hub = {"log_scalars": {"train/loss": history}, "runtime_info": {"lr": _numpy_float()}, "resumed_keys": {}}
    return {"meta": {"epoch": 200, "cfg": "model = dict()"}, "state_dict": state, "message_hub": hub}


# --- torchvision


def _supervised(arch: str, width: int) -> Publication:
    trunk, maps = _resnet(arch)
    head = _trained(nn.Sequential(nn.Linear(width, 1000)))
    # The old files descend from before PyTorch counted batches.
    state = {name: tensor for name, tensor in trunk.items() if not name.endswith("num_batches_tracked")}
    return Publication({**state, "fc.weight": head[0].weight, "fc.bias": head[0].bias}, maps, head)


_PUBLISHERS: Mapping[str, Callable[[], Publication]] = {
    "mocov3_r50_100": _mocov3_resnet50,
    "mocov3_r50_300": _mocov3_resnet50,
    "mocov3_r50_1000": _mocov3_resnet50,
    "mocov3_vits": lambda: _mocov3_vit(384),
    "mocov3_vitb": lambda: _mocov3_vit(768),
    "mocov2_r50_200": _mocov2,
    "mocov2_r50_800": _mocov2,
    "densecl_r50": _densecl,
    "densecl_r50_mm": _densecl_openmmlab,
    "byol_r50_mm": _byol_openmmlab,
    "byol_r50_airl": _byol_airl,
    "simsiam_r50_100": _simsiam,
    "simsiam_r50_100_256": _simsiam,
    "barlow_r50_1000": _barlow,
    "vicreg_r50": _vicreg,
    "swav_r50_800": _swav,
    "dino_r50": _dino_resnet50,
    "dino_r50 behind DistributedDataParallel": lambda: _dino_resnet50("module."),
    "dino_vits16": _dino_vits16,
    "sup_r50": lambda: _supervised("resnet50", 2048),
    "sup_r50_v2": lambda: _supervised("resnet50", 2048),
    "sup_r18": lambda: _supervised("resnet18", 512),
}

PUBLICATIONS = tuple(_PUBLISHERS)
"""Registry names, some with a variant of the file behind them."""


# --- parts


def _mlp(
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


def _trained(network: Network) -> Network:
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


def _resnet(arch: str) -> tuple[State, Callable[[Tensor], Tensor]]:
    """Tensors without a classifier, and torchvision's own way to the last map."""
    network = torchvision.models.get_model(arch)
    network.fc = nn.Identity()
    _trained(network)
    features = nn.Sequential(*list(network.children())[:-2])
    return network.state_dict(), features


def _vit(width: int, heads: int, depth: int = 12, tokens: int = 14 * 14) -> tuple[State, Callable[[Tensor], Tensor]]:
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


def _under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def _prefixed(network: nn.Module, prefix: str) -> State:
    return _under(prefix, network.state_dict())


def _renamed(head: nn.Module, names: dict[str, str]) -> State:
    return {names[name.split(".")[0]] + name[1:]: tensor for name, tensor in head.state_dict().items()}


def _hollow(content: Any) -> Any:
    """Zeros that take no memory in place of tensors: for branches that nobody may read, and for tests of names."""
    if isinstance(content, Tensor):
        return torch.zeros(1, dtype=content.dtype, device="cpu").squeeze().expand(content.shape)
    if isinstance(content, dict):
        return {key: _hollow(value) for key, value in content.items()}
    return content


def _optimizer(**settings: Any) -> dict[str, Any]:
    momentum = {0: {"momentum_buffer": torch.zeros(1, device="cpu")}}
    return {"state": momentum, "param_groups": [{"lr": 0.1, "params": [0], **settings}]}


# --- objects that are written by the names they have in the publisher's Python, which is not ours


@dataclass
class _Global:
    module: str
    name: str


@dataclass
class _Object:
    maker: _Global
    arguments: tuple[Any, ...]
    state: Any = None
    is_new: bool = False
    """Made by __new__, and not by a call."""


def _numpy_dtype() -> _Object:
    return _Object(_Global("numpy", "dtype"), ("f8", False, True), (3, "<", None, None, None, -1, -1, 0))


def _numpy_float() -> _Object:
    return _Object(_Global("numpy.core.multiarray", "scalar"), (_numpy_dtype(), bytes(8)))


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, _Object):
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


_PICKLE = SimpleNamespace(__name__="pickle", Pickler=_Pickler, dump=_dump)
"""What torch.save takes for the pickle module."""
