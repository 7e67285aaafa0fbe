"""Train the demo's teacher with MoCo v3's objective, as a stage process: `python -m pcd.teachers.train_demo SPEC`.

Writes the checkpoint in MoCo v3's own layout (`state_dict` -> `module.momentum_encoder.`, head `fc.` with its
BatchNorms; facebookresearch/moco-v3@c349e6e) in half precision, and a recipe with its hash, size and settings beside
it. The base encoder and the predictor, which no reader of the file needs, are left out to keep it small.
"""

import copy
import hashlib
import math
import sys
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pcd.checkpoint import save_checkpoint
from pcd.errors import PCDError
from pcd.heads import build_vector_head
from pcd.image_sources import open_pool
from pcd.images import EpochBatches, TwoViewImages, iterate
from pcd.optim import build_optimizer, set_learning_rate
from pcd.photometric import photometric
from pcd.precision import autocast_type
from pcd.resume import load_own_checkpoint
from pcd.schedule import cosine_with_warmup
from pcd.settings import OptimizerSettings, Settings, ViewSettings, setting
from pcd.stage import Spec, Stopped, run_stage, write_json
from pcd.teachers.registry import DEMO_CHECKPOINT, DEMO_HEAD, DEMO_RECIPE, DEMO_TRUNK
from pcd.teachers.trunks import build_trunk
from pcd.unreadable import UnreadableImages

__all__ = ["DemoTeacherSettings", "momentum_contrast_loss", "train_demo_teacher"]


class DemoTeacherSettings(Settings):
    """MoCo v3 (arXiv 2104.02057) on a small scale; every default is ours.

    Most views are grey: with their colours, images are told apart by these alone, and the teacher learns nothing of
    shape (docs/mini.md).
    """

    epochs: float = setting(60.0, "passes over the pool", "ours", gt=0)
    batch: int = setting(128, "images of one step; the others in it are the negatives", "ours", ge=2)
    temperature: float = setting(0.2, "temperature of the contrast", "ours", gt=0)
    momentum: float = setting(
        0.99, "of the momentum encoder at the start; it rises to 1 as a cosine", "ours", ge=0, lt=1
    )
    seed: int = setting(0, "of weights, order and views", "ours", ge=0)
    views: ViewSettings = ViewSettings(
        size=64, min_scale=0.3, jitter=(0.6, 0.6, 0.3, 0.1), grayscale_probability=0.8, blur_probability=(0.1, 0.1)
    )
    optimizer: OptimizerSettings = OptimizerSettings(
        name="adamw", learning_rate=2e-3, weight_decay=0.05, warmup_epochs=2.0
    )


class _Encoder(nn.Module):
    """Trunk, average pooling, head: as MoCo v3 builds it, the head in place of `fc`."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = build_trunk(DEMO_TRUNK)
        self.head = build_vector_head(DEMO_HEAD)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, O)."""
        vectors: Tensor = self.head(self.trunk(images).mean(dim=(2, 3)))
        return vectors


def momentum_contrast_loss(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """2 tau times the cross-entropy that picks each query's own key among the batch (MoCo v3, algorithm 1).

    Args:
        queries, keys: (B, O), any length of vectors.
    """
    q, k = F.normalize(queries.float(), dim=1), F.normalize(keys.float(), dim=1)
    logits = q @ k.T / temperature  # (B, B)
    return 2 * temperature * F.cross_entropy(logits, torch.arange(len(q), device=q.device))


def train_demo_teacher(spec: Spec) -> dict[str, Any]:
    settings = DemoTeacherSettings.model_validate(spec.settings["demo_teacher"])
    torch.set_num_threads(spec.runtime["threads"])
    torch.manual_seed(settings.seed)
    source = open_pool(spec.inputs["data"])
    per_epoch = len(source) // settings.batch
    if per_epoch == 0:
        raise PCDError(f"the pool has {len(source)} images, fewer than one batch of {settings.batch}; add images")
    total, warmup = round(settings.epochs * per_epoch), round(settings.optimizer.warmup_epochs * per_epoch)

    base, predictor = _Encoder(), build_vector_head(_predictor_layout())
    slow = copy.deepcopy(base).requires_grad_(False)
    learner = nn.ModuleDict({"base": base, "predictor": predictor})
    optimizer = build_optimizer(learner, settings.optimizer)
    first = _resume(spec, learner, slow, optimizer)
    half = autocast_type("auto", torch.device("cpu"))
    peak = settings.optimizer.learning_rate * settings.batch / 256

    loader = DataLoader(
        TwoViewImages(source, settings.views, settings.seed),
        batch_sampler=EpochBatches(source, settings.batch, settings.seed, first, total),
        num_workers=spec.runtime["workers"],
    )
    unreadable = UnreadableImages(0.0, source)
    for step, batch in enumerate(iterate(loader), start=first):
        unreadable.note(batch.unreadable)
        view1, view2 = (
            photometric(crops.pixels, crops.photometric).contiguous(memory_format=torch.channels_last)
            for crops in (batch.view1, batch.view2)
        )
        set_learning_rate(optimizer, cosine_with_warmup(step, total, warmup, peak))
        with torch.autocast("cpu", half) if half else nullcontext():
            query1, query2 = predictor(base(view1)), predictor(base(view2))
            with torch.no_grad():
                _follow(slow, base, 1 - (1 - settings.momentum) * (1 + math.cos(math.pi * step / total)) / 2)
                key1, key2 = slow(view1), slow(view2)
            loss = momentum_contrast_loss(query1, key2, settings.temperature)
            loss = loss + momentum_contrast_loss(query2, key1, settings.temperature)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        done = step + 1
        spec.metrics.log(done, total, {"loss": loss.item(), "spread": _spread(key1)})
        if done % per_epoch == 0 or spec.stop_requested:
            state = {"step": done, "settings": spec.settings, "optimizer": optimizer.state_dict()}
            state |= {"learner": learner.state_dict(), "slow": slow.state_dict()}
            save_checkpoint(spec.out / "checkpoint.pt", state)
        if spec.stop_requested and done < total:
            raise Stopped
    return _publish(spec, slow, settings, total)


def _predictor_layout() -> Any:
    hidden, out = DEMO_HEAD.widths[1:]
    return type(DEMO_HEAD)(widths=(out, hidden, out), bias=False, norm=True, last_norm="none")


@torch.no_grad()
def _follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    for p, q in zip(slow.parameters(), fast.parameters(), strict=True):
        p.lerp_(q, 1 - momentum)


def _spread(vectors: Tensor) -> float:
    """Standard deviation of unit vectors over the batch, times sqrt(O): 1 for uniform directions, 0 when collapsed."""
    unit = F.normalize(vectors.float(), dim=1)
    return float(unit.std(dim=0).mean() * unit.shape[1] ** 0.5)


def _resume(spec: Spec, learner: nn.Module, slow: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    state = load_own_checkpoint(spec)
    if state is None:
        return 0
    learner.load_state_dict(state["learner"])
    slow.load_state_dict(state["slow"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _publish(spec: Spec, slow: _Encoder, settings: DemoTeacherSettings, steps: int) -> dict[str, Any]:
    prefix = "module.momentum_encoder."
    tensors = {f"{prefix}{name}": t for name, t in slow.trunk.state_dict().items()}
    tensors |= {f"{prefix}fc.{name}": t for name, t in slow.head.state_dict().items()}
    halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    path = spec.out / DEMO_CHECKPOINT.name
    torch.save({"epoch": round(settings.epochs), "arch": "resnet18", "state_dict": halves}, path)
    recipe = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size_bytes": path.stat().st_size,
        "command": "pcd teachers train-demo",
        "settings": settings.model_dump(mode="json"),
        "data": spec.settings["data"],
        "steps": steps,
        "torch": torch.__version__,
    }
    write_json(spec.out / DEMO_RECIPE.name, recipe)
    return {"sha256": recipe["sha256"], "size_bytes": recipe["size_bytes"]}


if __name__ == "__main__":
    sys.exit(run_stage(train_demo_teacher))
