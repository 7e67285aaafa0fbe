"""Optimizer and learning rate, against those that Detectron2 makes of the published configurations."""

from typing import Any

import pytest
import torch
from detectron2 import model_zoo
from detectron2.solver import build_lr_scheduler
from detectron2.solver import build_optimizer as build_detectron2s
from torch import nn

from eval.departures import resolve
from eval.detectron.solver import build_optimizer, learning_rate
from eval.finetune_settings import FinetuneSettings

COCO = "COCO-InstanceSegmentation"
SHORT = {"MAX_ITER": 90_000, "STEPS": (60_000, 80_000)}
MOCOS = {"MAX_ITER": 24_000, "STEPS": (18_000, 22_000)}
PUBLISHED: list[tuple[str, str, dict[str, Any]]] = [
    ("fpn_1x", f"{COCO}/mask_rcnn_R_50_FPN_1x.yaml", {}),
    ("fpn_1x_4conv1fc", "Misc/mask_rcnn_R_50_FPN_3x_syncbn.yaml", SHORT),
    ("sslight_fpn_1x", f"{COCO}/mask_rcnn_R_50_FPN_1x.yaml", {}),
    ("c4_1x", f"{COCO}/mask_rcnn_R_50_C4_1x.yaml", {}),
    ("voc_c4_24k", "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml", MOCOS),
    ("voc_fpn_24k", "PascalVOC-Detection/faster_rcnn_R_50_FPN.yaml", MOCOS),
    ("cityscapes_fpn", "Cityscapes/mask_rcnn_R_50_FPN.yaml", {}),
]
"""A protocol, Detectron2's file, and what of its SOLVER the protocol says that it has otherwise."""


def solver(zoo: str, changes: dict[str, Any]) -> Any:
    cfg = model_zoo.get_config(zoo)
    for name, value in changes.items():
        assert cfg.SOLVER[name] != value
        cfg.SOLVER[name] = value
    return cfg


def settings_of(name: str) -> FinetuneSettings:
    settings = resolve(name)
    assert isinstance(settings, FinetuneSettings)
    return settings


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.mark.parametrize(("name", "zoo", "changes"), PUBLISHED)
def test_the_learning_rate_of_every_step_is_detectron2s(name: str, zoo: str, changes: dict[str, Any]) -> None:
    settings, cfg = settings_of(name), solver(zoo, changes)
    scheduler = build_lr_scheduler(cfg, build_detectron2s(cfg, network()))
    here, there = [], []
    turns = {0, 1, settings.warmup_iterations, *cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER - 1}
    for step in sorted({*turns, *(turn - 1 for turn in turns if turn), *range(0, cfg.SOLVER.MAX_ITER, 97)}):
        scheduler.last_epoch = step
        there.append(scheduler.get_lr()[0])
        here.append(learning_rate(settings, step))
    assert here == pytest.approx(there, rel=1e-9)


@pytest.mark.parametrize(("name", "zoo", "changes"), PUBLISHED)
def test_the_optimizer_is_detectron2s(name: str, zoo: str, changes: dict[str, Any]) -> None:
    model, settings, cfg = network(), settings_of(name), solver(zoo, changes)
    ours, theirs = build_optimizer(model, settings), build_detectron2s(cfg, model)
    assert isinstance(ours, torch.optim.SGD)
    of_each = [
        {id(p): {k: v for k, v in group.items() if k != "params"} for group in o.param_groups for p in group["params"]}
        for o in (ours, theirs)
    ]
    for parameters in of_each:
        for group in parameters.values():
            group.pop("initial_lr", None)
    assert of_each[0] == of_each[1]


@pytest.mark.parametrize(("name", "zoo", "changes"), PUBLISHED)
def test_a_step_and_their_number_are_detectron2s(name: str, zoo: str, changes: dict[str, Any]) -> None:
    settings, there = settings_of(name), solver(zoo, changes).SOLVER
    assert (settings.batch, settings.iterations) == (there.IMS_PER_BATCH, there.MAX_ITER)
    assert (settings.clip_gradient_norm > 0) == there.CLIP_GRADIENTS.ENABLED
    assert (settings.precision != "fp32") == there.AMP.ENABLED
