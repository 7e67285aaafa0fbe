"""PCD pre-training as a stage process: `python -m pcd.train SPEC`, alone or under `torchrun`.

Reads `inputs.teacher` (the folder of a fetched teacher) and `inputs.data` (a folder with data.json, whose `pool` is a
folder of unlabelled images); writes metrics.jsonl, checkpoint.pt while it runs, and in the end backbone.safetensors,
for ResNets backbone_detectron2.pth, MODEL_CARD.md, receptive_field.json and .png, and result.json.
"""

import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from pcd.checkpoint import load_checkpoint, save_checkpoint
from pcd.distributed import any_rank, gather, mean_over_ranks, process_group, rank, world_size
from pcd.errors import PCDError
from pcd.export import DETECTRON2_RESNETS, export_backbone, export_for_detectron2
from pcd.image_folder import list_images, pool_folder
from pcd.images import EpochBatches, TwoViewImages, iterate
from pcd.loss import pixel_contrastive_loss
from pcd.model_card import write_model_card
from pcd.optim import build_optimizer, set_learning_rate
from pcd.precision import autocast_type
from pcd.queue import NegativeQueue
from pcd.receptive_field import probe_images, write_receptive_field
from pcd.schedule import cosine_with_warmup
from pcd.settings import PretrainSettings
from pcd.stage import Spec, Stopped, run_stage
from pcd.students import Student, build_student
from pcd.teachers import TEACHERS, Teacher, load_teacher
from pcd.views import TwoViews

__all__ = ["pretrain", "training_loss"]


def pretrain(spec: Spec) -> dict[str, Any]:
    """The whole run in the order of time: build, resume, step, save, export."""
    settings = PretrainSettings.model_validate(spec.settings["pretrain"])
    seed: int = spec.settings["seed"]
    torch.set_num_threads(spec.runtime["threads"])
    with process_group(spec.runtime["device"]) as device:
        paths = list_images(pool_folder(spec.inputs["data"]))
        total = _count_steps(settings, len(paths))
        teacher, student, queue = _build_networks(spec, settings, seed, device)
        optimizer = build_optimizer(student, settings.optimizer)
        peak = settings.optimizer.learning_rate * settings.global_batch / 256
        warmup = round(settings.optimizer.warmup_epochs * total / settings.epochs)
        first = _resume(spec, student, queue, optimizer)
        # Two forward passes before one backward: buffers must not be broadcast in between.
        replica = DistributedDataParallel(student, broadcast_buffers=False) if world_size() > 1 else student
        half = autocast_type(settings.precision, device)

        loader = _loader(spec, settings, paths, seed, first, total)
        saved_at = time.monotonic()
        student.train()
        for step, views in enumerate(iterate(loader), start=first):
            view1, view2 = (v.to(device, memory_format=torch.channels_last, non_blocking=True) for v in views)
            learning_rate = cosine_with_warmup(step, total, warmup, peak)
            set_learning_rate(optimizer, learning_rate)
            with torch.autocast(device.type, half) if half else nullcontext():
                loss, negatives = training_loss(replica, teacher, queue, view1, view2, settings)
            if not torch.isfinite(loss):
                raise PCDError(f"the loss is {loss.item()} at step {step}; lower optimizer.learning_rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            queue.enqueue(gather(negatives))

            done = step + 1
            if done % spec.runtime["log_every"] == 0 or done == total:
                spec.metrics.log(
                    done, total, {"loss": mean_over_ranks(loss.detach()).item(), "learning_rate": learning_rate}
                )
            stop = any_rank(spec.stop_requested, device)
            if stop or time.monotonic() - saved_at > spec.runtime["checkpoint_seconds"]:
                _save(spec, done, student, queue, optimizer)
                saved_at = time.monotonic()
            if stop and done < total:
                raise Stopped
        _save(spec, total, student, queue, optimizer)  # so that a fault of what follows costs no training
        if spec.is_first_rank:
            _export(spec, settings, student, paths)
    entry = TEACHERS[spec.settings["teacher"]]
    return {
        "steps": total,
        "images": len(paths),
        "precision": str(half or torch.float32).removeprefix("torch."),
        "teacher_licence": entry.licence,
        "teacher_noncommercial": entry.noncommercial,
    }


def training_loss(
    student: nn.Module, teacher: Teacher, queue: NegativeQueue, view1: Tensor, view2: Tensor, settings: PretrainSettings
) -> tuple[Tensor, Tensor]:
    """The loss of one batch, mean of the two directions, and the vectors that join the queue.

    Args:
        view1, view2: (B, 3, size, size).

    Returns:
        A scalar, and the teacher's output on view 1, pooled over the grid: (B, O).
    """
    student1, student2 = student(view1), student(view2)  # one pass each: BatchNorm sees one view at a time
    teacher1, teacher2 = teacher(torch.cat([view1, view2])).chunk(2)
    if student1.shape != teacher1.shape:
        raise PCDError(f"the student's map {tuple(student1.shape)} does not fit the teacher's {tuple(teacher1.shape)}")
    pooled = teacher1.float().mean(dim=(2, 3))  # (B, O)
    if settings.loss.pairing == "crossed":
        teacher1, teacher2 = teacher2, teacher1
    loss1 = pixel_contrastive_loss(student1, teacher1, queue.negatives, settings.loss.temperature)
    loss2 = pixel_contrastive_loss(student2, teacher2, queue.negatives, settings.loss.temperature)
    return (loss1 + loss2) / 2, pooled


def _count_steps(settings: PretrainSettings, images: int) -> int:
    if images < settings.global_batch:
        raise PCDError(
            f"the pool has {images} images, fewer than one global batch of {settings.global_batch}; "
            "lower pretrain.global_batch or add images"
        )
    if settings.global_batch % world_size():
        raise PCDError(
            f"a global batch of {settings.global_batch} does not divide among {world_size()} processes; "
            "choose a multiple"
        )
    total = round(settings.epochs * (images // settings.global_batch))
    if total == 0:
        raise PCDError(
            f"{settings.epochs:g} epochs over {images} images are no whole step of {settings.global_batch} images; "
            "raise pretrain.epochs"
        )
    return total


def _build_networks(
    spec: Spec, settings: PretrainSettings, seed: int, device: torch.device
) -> tuple[Teacher, Student, NegativeQueue]:
    name: str = spec.settings["teacher"]
    file = json.loads((spec.inputs["teacher"] / "result.json").read_text())["file"]
    teacher = load_teacher(name, spec.inputs["teacher"] / file, keep_last_norm=settings.adaptor_keeps_last_norm)
    torch.manual_seed(seed)  # the student's start is the seed's on every rank
    head = TEACHERS[name].head
    backbone = build_student(settings.student)
    try:
        student = Student(backbone, head, settings.attention_heads if settings.attention else None)
    except ValueError as error:
        raise PCDError(f"pretrain.attention_heads: {error}") from None
    queue = NegativeQueue(settings.loss.negatives, head.widths[-1], seed)
    if world_size() > 1 and device.type == "cuda":
        student = convert_sync_batchnorm(student)  # torch's own would drop the activations in timm's BatchNorms
    student.to(device).to(memory_format=torch.channels_last)
    teacher.to(device).to(memory_format=torch.channels_last)
    return teacher, student, queue.to(device)


def _loader(
    spec: Spec, settings: PretrainSettings, paths: list[Path], seed: int, first: int, total: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    batches = EpochBatches(len(paths), settings.global_batch, seed, first, total, rank(), world_size())
    workers: int = spec.runtime["workers"]
    return DataLoader(
        TwoViewImages(paths, TwoViews(settings.views), seed),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _export(spec: Spec, settings: PretrainSettings, student: Student, paths: list[Path]) -> None:
    export_backbone(student.backbone, spec.out / "backbone.safetensors", {"student": settings.student})
    if settings.student in DETECTRON2_RESNETS:
        export_for_detectron2(student.backbone, spec.out / "backbone_detectron2.pth")
    figures = write_receptive_field(student, probe_images(paths, settings.views.size), spec.out)
    write_model_card(spec, settings, figures)


def _save(spec: Spec, done: int, student: Student, queue: NegativeQueue, optimizer: torch.optim.Optimizer) -> None:
    if spec.is_first_rank:
        state = {
            "step": done,
            "student": student.state_dict(),
            "queue": queue.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        save_checkpoint(spec.out / "checkpoint.pt", state)


def _resume(spec: Spec, student: Student, queue: NegativeQueue, optimizer: torch.optim.Optimizer) -> int:
    """Load the last checkpoint, if there is one, and return the step to go on from.

    Views and order depend on (seed, epoch, image) alone, so no random state has to be kept.
    """
    state = load_checkpoint(spec.out / "checkpoint.pt")
    first = state["step"] if state else 0
    if state:
        student.load_state_dict(state["student"])
        queue.load_state_dict(state["queue"])
        optimizer.load_state_dict(state["optimizer"])
        print(f"resumed from step {first}")
    spec.metrics.drop_after(first)
    return int(first)


if __name__ == "__main__":
    sys.exit(run_stage(pretrain))
