"""Checkpoints as each publisher writes them: written from the publishers' code, apart from the registry.

Trunks are torchvision's ResNets and a ViT of functions, heads are written out layer by layer, and around them stands
what training scripts save along: other encoders, predictors, queues, optimizers, arguments.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.pcd.teachers.publisher_parts import (
    PICKLE,
    Global,
    Object,
    State,
    mlp,
    numpy_dtype,
    numpy_float,
    optimizer,
    prefixed,
    renamed,
    resnet,
    trained,
    under,
    vit,
    without_memory,
)  # fmt: skip


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
            self.content, path, pickle_module=PICKLE, pickle_protocol=2,
            _use_new_zipfile_serialization=not self.is_old_format,
        )  # fmt: skip


def publish(name: str, *, hollow: bool = False) -> Publication:
    """`hollow`: names, shapes and types are right, but the tensors take no memory and are zero."""
    if hollow:
        with torch.device("meta"):
            publication = _PUBLISHERS[name]()
        publication.content = without_memory(publication.content)
        return publication
    return _PUBLISHERS[name]()


# --- MoCo v3: moco/builder.py, vits.py, main_moco.py


def _mocov3_resnet50() -> Publication:
    trunk, maps = resnet("resnet50")
    head = trained(mlp(2048, 4096, 256, norm=True, last_norm=True))
    momentum = {**trunk, **prefixed(head, "fc.")}
    predictor = mlp(256, 4096, 256, norm=True)
    return Publication(_moco_file(momentum, predictor, "resnet50"), maps, head, has_last_norm=True)


def _mocov3_vit(width: int) -> Publication:
    trunk, maps = vit(width, heads=12)
    head = trained(mlp(width, 4096, 4096, 256, norm=True, last_norm=True))
    momentum = {**trunk, **prefixed(head, "head.")}
    predictor = mlp(256, 4096, 256, norm=True, last_norm=True)
    return Publication(_moco_file(momentum, predictor, "vit"), maps, head, has_last_norm=True)


def _moco_file(momentum: State, predictor: nn.Module, arch: str) -> dict[str, Any]:
    state = {
        **under("module.base_encoder.", without_memory(momentum)),
        **under("module.momentum_encoder.", momentum),
        **without_memory(prefixed(predictor, "module.predictor.")),
    }
    return {"epoch": 300, "arch": arch, "state_dict": state, "optimizer": optimizer(), "scaler": {"scale": 65536.0}}


# --- MoCo v2: moco/builder.py, main_moco.py


def _mocov2() -> Publication:
    trunk, maps = resnet("resnet50")
    head = trained(mlp(2048, 2048, 128, bias=True, last_bias=True))
    encoder_k = {**trunk, **prefixed(head, "fc.")}
    queue = {"module.queue": torch.zeros(1).expand(128, 65536), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    state = {**under("module.encoder_q.", without_memory(encoder_k)), **under("module.encoder_k.", encoder_k), **queue}
    content = {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": optimizer()}
    return Publication(content, maps, head, is_old_format=True)


# --- SwAV: src/resnet50.py; a flat dictionary


def _swav() -> Publication:
    trunk, maps = resnet("resnet50")
    head = trained(mlp(2048, 2048, 128, norm=True, bias=True, last_bias=True))
    names = {**trunk, **prefixed(head, "projection_head."), "prototypes.weight": torch.randn(3000, 128)}
    return Publication(under("module.", names), maps, head, is_old_format=True)


# --- Barlow Twins: main.py; VICReg: main_vicreg.py


def _barlow() -> Publication:
    trunk, maps = resnet("resnet50")
    projector = trained(mlp(2048, 8192, 8192, 8192, norm=True))
    bn = trained(nn.BatchNorm1d(8192, affine=False))
    state = {
        **under("module.backbone.", trunk),
        **prefixed(projector, "module.projector."),
        **prefixed(bn, "module.bn."),
    }
    filters = {"weight_decay_filter": Global("__main__", "exclude_bias_and_norm")}
    filters |= {"lars_adaptation_filter": Global("__mp_main__", "exclude_bias_and_norm")}
    content = {"epoch": 1000, "model": state, "optimizer": optimizer(**filters)}
    return Publication(content, maps, nn.Sequential(*projector, bn).eval(), has_last_norm=True)


def _vicreg() -> Publication:
    trunk, maps = resnet("resnet50")
    projector = trained(mlp(2048, 8192, 8192, 8192, norm=True, bias=True, last_bias=False))
    state = {**under("module.backbone.", trunk), **prefixed(projector, "module.projector.")}
    filters = {"weight_decay_filter": Global("__main__", "exclude_bias_and_norm")}
    return Publication({"epoch": 1000, "model": state, "optimizer": optimizer(**filters)}, maps, projector)


# --- BYOL: mmselfsup's byol.py, nonlinear_neck.py, ema.py; revisitAIRL's siamese_network.py, mlp.py


def _byol_openmmlab() -> Publication:
    trunk, maps = resnet("resnet50")
    head = trained(mlp(2048, 4096, 256, norm=True, bias=True, last_bias=False))
    neck = renamed(head, {"0": "fc0", "1": "bn0", "3": "fc1"})
    state = {
        **under("backbone.", without_memory(trunk)),
        **under("neck.", without_memory(neck)),
        "head.predictor.fc0.weight": torch.zeros(1).expand(4096, 256),
        "target_net.steps": torch.tensor(100),
        **under("target_net.module.0.", trunk),
        **under("target_net.module.1.", neck),
    }
    return Publication(_openmmlab_file(state), maps, head, is_old_format=True)


def _byol_airl() -> Publication:
    trunk, maps = resnet("resnet50")
    head = trained(mlp(2048, 4096, 256, norm=True, bias=True, last_bias=True))
    online_only = mlp(2048, 4096, 256, 4096, 256, norm=True, bias=True, last_bias=True)
    state = {
        **under("module.online_encoder.", without_memory({**trunk, **prefixed(online_only, "fc.")})),
        **under("module.target_encoder.", {**trunk, **prefixed(head, "fc.")}),
    }
    extras = {"classifier": {"module.weight": torch.zeros(1).expand(1000, 2048)}, "optimizer_cls": optimizer()}
    return Publication({"start_epoch": 200, "model": state, "optimizer": optimizer(), **extras}, maps, head)


# --- SimSiam: simsiam/builder.py


def _simsiam() -> Publication:
    trunk, maps = resnet("resnet50")
    head = trained(mlp(2048, 2048, 2048, 2048, norm=True, last_bias=True, last_norm=True))
    predictor = mlp(2048, 512, 2048, norm=True, last_bias=True)
    state = under("module.encoder.", {**trunk, **prefixed(head, "fc.")})
    state |= without_memory(prefixed(predictor, "module.predictor."))
    content = {"epoch": 100, "arch": "resnet50", "state_dict": state, "optimizer": optimizer()}
    return Publication(content, maps, head, has_last_norm=True)


# --- DINO: vision_transformer.py, main_dino.py; for the ResNet's head dino#189 and RCDM's get_ssl_models.py


def _dino_resnet50(wrapper: str = "") -> Publication:
    trunk, maps = resnet("resnet50")
    head = trained(mlp(2048, 4096, 256, norm=True, bias=True, last_bias=True, activation=nn.GELU))
    last = {"head.last_layer.weight": torch.zeros(1).expand(60000, 256)}
    teacher = {**under("backbone.", trunk), **prefixed(head, "head.mlp."), **last}
    return Publication(_dino_file(under(wrapper, teacher)), maps, head)


def _dino_vits16() -> Publication:
    trunk, maps = vit(384, heads=6)
    head = trained(mlp(384, 2048, 2048, 256, bias=True, last_bias=True, activation=nn.GELU))
    last = {
        "head.last_layer.weight_g": torch.zeros(1).expand(65536, 1),
        "head.last_layer.weight_v": torch.zeros(1).expand(65536, 256),
    }
    return Publication(_dino_file({**under("backbone.", trunk), **prefixed(head, "head.mlp."), **last}), maps, head)


def _dino_file(teacher: State) -> dict[str, Any]:
    scheduled = numpy_float()  # what numpy's schedule leaves in the optimizer
    return {
        "student": under("module.", without_memory(teacher)),
        "teacher": teacher,
        "optimizer": optimizer(lr=scheduled, weight_decay=scheduled),
        "epoch": 800,
        "args": argparse.Namespace(arch="resnet50", lr=0.3, use_fp16=True, local_crops_scale=(0.05, 0.14)),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "fp16_scaler": {"scale": 65536.0},
    }


# --- DenseCL: tools/extract_backbone_weights.py; mmselfsup's densecl.py, densecl_neck.py


def _densecl() -> Publication:
    trunk, maps = resnet("resnet50")
    return Publication({"state_dict": trunk, "author": "OpenSelfSup"}, maps, nn.Identity(), is_old_format=True)


def _densecl_openmmlab() -> Publication:
    trunk, maps = resnet("resnet50")
    dense = trained(nn.Sequential(nn.Conv2d(2048, 2048, 1), nn.ReLU(), nn.Conv2d(2048, 128, 1)))
    neck = {
        **without_memory(prefixed(mlp(2048, 2048, 128, bias=True, last_bias=True), "mlp.")),
        **prefixed(dense, "mlp2."),
    }
    encoder_q = {**under("0.", trunk), **under("1.", neck)}
    state = {
        **under("encoder_q.", without_memory(encoder_q)),
        **under("encoder_k.module.", encoder_q),
        **under("backbone.", without_memory(trunk)),
        "queue": torch.zeros(1).expand(128, 65536),
        "queue2": torch.zeros(1).expand(128, 65536),
    }
    return Publication(_openmmlab_file(state), maps, dense, is_dense=True, is_old_format=True)


def _openmmlab_file(state: State) -> dict[str, Any]:
    buffer = Global("mmengine.logging.history_buffer", "HistoryBuffer")
    array = Object(
        Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), b"b"),
        (1, (2,), numpy_dtype(), False, bytes(16)),
    )  # fmt: skip
    methods = {"mean": Object(Global("__builtin__", "getattr"), (buffer, "mean"))}
    history = Object(buffer, (), {"max_length": 10, "_log_history": array, "_statistics_methods": methods}, is_new=True)
    hub = {"log_scalars": {"train/loss": history}, "runtime_info": {"lr": numpy_float()}, "resumed_keys": {}}
    return {"meta": {"epoch": 200, "cfg": "model = dict()"}, "state_dict": state, "message_hub": hub}


# --- torchvision


def _supervised(arch: str, width: int) -> Publication:
    trunk, maps = resnet(arch)
    head = trained(nn.Sequential(nn.Linear(width, 1000)))
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
