"""Pre-training as a stage process: `python -m pcd.train SPEC`, alone or under `torchrun`.

Reads `inputs.teacher` (the folder of a fetched teacher) and `inputs.data` (a folder with data.json, whose `pool` is a
folder of unlabelled images); writes metrics.jsonl, checkpoints while it runs, the exported backbone with its model
card, pictures of its receptive field and of what it shares with the teacher, and result.json.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from pcd.distributed import any_rank, gather_objects, mean_over_ranks, process_group, rank, world_size
from pcd.errors import PCDError
from pcd.export import DETECTRON2_RESNETS, export_backbone, export_for_detectron2
from pcd.finite_guard import StepGuard
from pcd.gpu_memory import peak_gpu_memory
from pcd.image_sources import ImageSource, open_pool
from pcd.images import EpochBatches, TwoViewBatch, TwoViewImages, first_samples_hash, iterate
from pcd.knn import KnnMonitor
from pcd.model_card import write_model_card
from pcd.networks import build_pair, hasten
from pcd.objective import Objective, load_objective
from pcd.optim import build_optimizer, set_learning_rate
from pcd.pace import Pace
from pcd.precision import autocast_type
from pcd.queue import filling_warning
from pcd.receptive_field import probe_images, write_receptive_field
from pcd.schedule import cosine_with_warmup
from pcd.settings import PretrainSettings
from pcd.similarity_maps import write_similarity_maps
from pcd.snapshots import write_snapshot
from pcd.stage import Spec, Stopped, run_stage
from pcd.step_plan import StepPlan, plan_steps
from pcd.students import Student
from pcd.sync_norm import synchronise_norms
from pcd.teachers import TEACHERS, Teacher
from pcd.training_state import TrainingState
from pcd.training_step import StepMaker
from pcd.unreadable import UnreadableImages

__all__ = ["pretrain", "replicate"]


def pretrain(spec: Spec) -> dict[str, Any]:
    """The whole run in the order of time: build, check, resume, step, save, export."""
    settings = PretrainSettings.model_validate(spec.settings["pretrain"])
    torch.set_num_threads(spec.runtime["threads"])
    with process_group(spec.runtime["device"], found_result=spec.found_result) as device:
        source = open_pool(spec.inputs["data"], spec.runtime.get("data_places"))
        plan = plan_steps(settings, len(source), world_size())
        half = autocast_type(settings.precision, device)
        teacher, state = _build(spec, settings, plan.total, half, device)
        student, objective = state.student, state.objective

        first, notes = state.resume(spec)
        _check_that_ranks_agree(spec, len(source), first)
        _check_precision(notes, half)
        if spec.runtime["compile"]:
            student.compile()
        guard = StepGuard(spec, state, half)
        maker = StepMaker(
            state=state, replica=replicate(student), teacher=teacher, guard=guard, half=half, device=device
        )
        unreadable = UnreadableImages(spec.runtime["max_unreadable_share"], source)
        unreadable.met |= set(notes.pop("unreadable", ()))
        unreadable.seen = first * settings.global_batch
        monitor, monitor_every = _monitor(spec, settings, plan)
        snapshot_every = max(1, round(spec.runtime["snapshot_epochs"] * plan.per_epoch))
        backend = objective.choice(device, half or torch.float32)
        print(f"the loss runs by {backend.backend} ({backend.reason})")
        warning = filling_warning(objective, settings.global_batch, plan.total)

        saved_at, pace = time.monotonic(), Pace(first)
        student.train()
        batches = iterate(_loader(spec, settings, source, plan, first))
        for step in range(first, plan.total):
            parts = pace.wait_for(batches, settings.accumulation)
            if step == 0:
                notes["first_samples_sha256"] = first_samples_hash(parts[0])
            for part in parts:
                unreadable.note(part.unreadable)
            learning_rate = cosine_with_warmup(step, plan.total, plan.warmup, plan.peak_learning_rate)
            set_learning_rate(state.optimizer, learning_rate)
            loss, gradient_norm = maker.take(step, parts)

            done = step + 1
            is_watched = done % monitor_every == 0
            if done % spec.runtime["log_every"] == 0 or done == plan.total or is_watched:
                of_pace = pace.figures(done, settings.global_batch)
                figures = {"loss": mean_over_ranks(loss).item(), "learning_rate": learning_rate}
                figures |= {"gradient_norm": gradient_norm, **of_pace}
                if monitor and is_watched:
                    figures |= _watch(monitor, student, device)
                spec.metrics.log(done, plan.total, figures)
                pace.restart(done)
            if spec.runtime["snapshot_epochs"] and spec.is_first_rank and done % snapshot_every == 0:
                write_snapshot(student.backbone, spec.out, done / plan.per_epoch, {"student": settings.student})
            stop, save = any_rank([spec.stop_requested, _is_due(spec, done, saved_at)], device)
            if (stop or save) and done < plan.total:
                state.save(spec, done, notes | {"unreadable": unreadable.on_all_ranks()})
                saved_at = time.monotonic()
                if stop:
                    raise Stopped
        damaged = unreadable.on_all_ranks()
        state.save(
            spec, plan.total, notes | {"unreadable": damaged}
        )  # so that a fault of what follows costs no training
        if spec.is_first_rank:
            _export(spec, settings, student, teacher, objective, source, half)
    entry = TEACHERS[spec.settings["teacher"]]
    return notes | {
        "steps": plan.total,
        "images": len(source),
        "unreadable_images": len(damaged),
        "objective": settings.objective,
        "loss_backend": backend.backend,
        "precision": str(half or torch.float32).removeprefix("torch."),
        **peak_gpu_memory(device),
        "teacher_licence": entry.licence,
        "teacher_noncommercial": entry.noncommercial,
        **({"warnings": [warning]} if warning else {}),
    }


def _build(
    spec: Spec, settings: PretrainSettings, steps: int, half: torch.dtype | None, device: torch.device
) -> tuple[Teacher, TrainingState]:
    """Everything on the device, as it is before the first of so many steps."""
    named, seed = spec.settings["teacher"], spec.settings["seed"]
    teacher, student = build_pair(spec.inputs["teacher"], named, settings, seed)
    hasten(teacher, half)
    if world_size() > 1:
        synchronise_norms(student, device)
    objective = load_objective(settings.objective)(settings, TEACHERS[named], student, seed, steps)
    for network in (student, teacher, objective):
        network.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(student, settings.optimizer)
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
    return teacher, TrainingState(student, objective, optimizer, scaler)


def _check_that_ranks_agree(spec: Spec, images: int, first: int) -> None:
    """A rank that sees another pool, or reads another checkpoint, would meet other images or wait for ever."""
    known = json.loads((spec.inputs["data"] / "data.json").read_text()).get("counts", {}).get("pool", images)
    if images != known:
        raise PCDError(f"the pool has {images} images now and had {known} when the data stage saw it; restore it")
    if len(seen := set(gather_objects((images, first)))) > 1:
        raise PCDError(f"the ranks see different pools or checkpoints (images, first step: {sorted(seen)}); try again")


def _check_precision(notes: dict[str, Any], half: torch.dtype | None) -> None:
    """Note what a run is computed in when it begins, and refuse to go on in something else."""
    if notes.setdefault("precision", str(half)) != str(half):
        raise PCDError(
            f"the checkpoint was computed in {notes['precision']}, and this machine would go on in {half}; "
            "resume it where it began, or start anew with pretrain.precision set"
        )


def replicate(student: Student) -> nn.Module:
    """The student, or what sums its gradients over the ranks. The objective is no part of it."""
    if world_size() == 1:
        return student
    # Two forward passes before one backward: buffers must not be broadcast in between.
    return DistributedDataParallel(student, forward_sync_buffers=False)


def _loader(
    spec: Spec, settings: PretrainSettings, source: ImageSource, plan: StepPlan, first: int
) -> DataLoader[TwoViewBatch]:
    seed: int = spec.settings["seed"]
    batches = EpochBatches(
        source, settings.global_batch, seed, first, plan.total, rank(), world_size(), settings.accumulation
    )
    workers: int = spec.runtime["workers"]
    return DataLoader(
        TwoViewImages(source, settings.views, seed),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the run's random state
    )


def _is_due(spec: Spec, done: int, saved_at: float) -> bool:
    """Whether a checkpoint is: by the time since the last one, or by the number of steps."""
    every: int = spec.runtime["checkpoint_steps"]
    is_late = time.monotonic() - saved_at > spec.runtime["checkpoint_seconds"]
    return is_late or (every > 0 and done % every == 0)


def _monitor(spec: Spec, settings: PretrainSettings, plan: StepPlan) -> tuple[KnnMonitor | None, int]:
    """What watches kNN top-1 on the first rank, if it is wanted, and after how many steps; it changes nothing."""
    every = max(1, round(spec.runtime["knn_epochs"] * plan.per_epoch))
    folder: Path | None = spec.runtime["knn_folder"]
    if folder is None:
        return None, plan.total
    workers: int = spec.runtime["workers"]
    return (KnnMonitor(folder, settings.views.size, workers=workers) if spec.is_first_rank else None), every


def _watch(monitor: KnnMonitor, student: Student, device: torch.device) -> dict[str, float]:
    """No figure is worth a run: what cannot be read is said, and training goes on."""
    try:
        return {"knn_top1": monitor.top1(student.backbone, device)}
    except PCDError as error:
        print(f"no kNN top-1 this time: {error}")
        return {}


def _export(
    spec: Spec, settings: PretrainSettings, student: Student, teacher: Teacher, objective: Objective,
    source: ImageSource, half: torch.dtype | None,
) -> None:  # fmt: skip
    spec.activity("export", 0, 3)
    metadata = {"student": settings.student, "objective": settings.objective}
    export_backbone(student.backbone, spec.out / "backbone.safetensors", metadata)
    if settings.student in DETECTRON2_RESNETS:
        export_for_detectron2(student.backbone, spec.out / "backbone_detectron2.pth")
    spec.activity("export", 1, 3)
    images = probe_images(source, settings.views.size)
    figures = write_receptive_field(student, images, spec.out)
    if (
        objective.sees == "pixels" and objective.in_one_space
    ):  # else no pixel of the one can be held against the other's
        seen = teacher if objective.teacher_part == "head" else teacher.trunk
        figures |= write_similarity_maps(student, seen, images, spec.out, half)
    spec.activity("export", 2, 3)
    write_model_card(spec, settings, figures)


if __name__ == "__main__":
    sys.exit(run_stage(pretrain))
