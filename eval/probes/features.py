"""Frozen features as a stage process: `python -m eval.probes.features SPEC`, alone or under `torchrun`.

Reads `inputs.data` (data.json of a set of classes) and, unless the arm starts at random, `inputs.backbone`
(backbone.safetensors); writes metrics.jsonl, checkpoints while it runs, features.safetensors (see eval.probes.frozen)
and result.json. All probes of a backbone read what this leaves, so each image is decoded once for all of them.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from eval.data import read_data_set
from eval.probes.frozen import FrozenFeatures, write_features
from eval.probes.settings import FeaturesSettings
from pcd.checkpoint import save_whole
from pcd.checkpoint_step import SIDECAR
from pcd.decode import read_rgb
from pcd.distributed import any_rank, gather_objects, process_group, rank, world_size
from pcd.errors import PCDError
from pcd.export import load_backbone, load_exactly
from pcd.gpu_memory import peak_gpu_memory
from pcd.images import iterate
from pcd.resume import refuse_other_settings
from pcd.stage import Spec, Stopped, run_stage, write_json
from pcd.students import build_student
from pcd.views import central_view
from pcd.weights_hash import weights_sha256

__all__ = ["compute_features", "features", "freeze"]

_BATCH: Final = 128
"""Images that each rank takes through the backbone at once."""


def features(spec: Spec) -> dict[str, Any]:
    """Every image of both splits once through the frozen backbone."""
    torch.set_num_threads(spec.runtime["threads"])
    with process_group(spec.runtime["device"], found_result=spec.found_result) as device:
        frozen, record = freeze(spec, device)
    if frozen is not None:
        write_features(spec.out, frozen)
    return record | peak_gpu_memory(device)


def freeze(spec: Spec, device: torch.device) -> tuple[FrozenFeatures | None, dict[str, Any]]:
    """Build the backbone, prove that it arrived, and compute its features: None on ranks but the first; and a record.

    Raises what compute_features does, and PCDError if the set is none of classes or the backbone does not fit.
    """
    settings = FeaturesSettings.model_validate(spec.settings["features"])
    data = read_data_set(spec.inputs["data"], spec.runtime.get("data_places"))
    train, val = data.labelled("train"), data.labelled("val")
    name: str = spec.settings["student"]
    if "backbone" in spec.inputs:
        backbone = build_student(name)
        load_exactly(backbone, load_backbone(spec.inputs["backbone"] / "backbone.safetensors", name))
    else:
        torch.manual_seed(spec.settings["seed"])  # the random arm's backbone is that of its detectors
        backbone = build_student(name)
    tensors = backbone.state_dict()
    record: dict[str, Any] = {"backbone_tensors": len(tensors), "backbone_sha256": weights_sha256(tensors)}
    backbone.to(device).to(memory_format=torch.channels_last)
    pooled = compute_features(spec, backbone, [path for path, _ in (*train, *val)], settings.size, device)
    if not spec.is_first_rank:
        return None, record
    labels = [torch.tensor([label for _, label in part]) for part in (train, val)]
    parts = pooled.split([len(train), len(val)])
    frozen = FrozenFeatures(parts[0], labels[0], parts[1], labels[1], data.categories)
    record |= {"train": len(train), "val": len(val), "classes": len(frozen.classes), "channels": pooled.shape[1]}
    return frozen, record | {"constant_channels": int((pooled == pooled[0]).all(dim=0).sum())}


def compute_features(spec: Spec, backbone: nn.Module, paths: Sequence[Path], size: int, device: torch.device) -> Tensor:
    """The deepest map of each image's central crop, averaged over its pixels; from the last checkpoint if there is one.

    A step is an image, whatever the number of ranks, so that any number of them can go on.

    Args:
        backbone: (B, 3, size, size) -> (B, C, h, w) on `device`; it is put in evaluation mode.

    Returns:
        (len(paths), C) fp32 on the CPU; on ranks but the first, nothing of use.

    Raises:
        PCDError: an image that cannot be read, features that are not finite, or a checkpoint of other settings.
        Stopped: behind a checkpoint, when asked to stop.
    """
    rows = _resume(spec)
    first, total, step = gather_objects(sum(map(len, rows)))[0], len(paths), _BATCH * world_size()
    parts = [_own_part(range(at, min(at + step, total))) for at in range(first, total, step)]
    loader = DataLoader(
        _CentralCrops(paths, size),
        batch_sampler=[list(part) for part in parts if part],
        num_workers=spec.runtime["workers"],
    )
    batches: Iterator[Tensor] = iterate(loader)
    backbone.eval()
    unsaved: list[Tensor] = []
    saved_at, done = time.monotonic(), first
    for number, part in enumerate(parts, start=1):
        own = _pool(backbone, next(batches), device) if part else None
        if own is not None and not own.isfinite().all():
            worst = paths[part[int((~own.isfinite().all(dim=1)).nonzero()[0])]]
            raise PCDError(f"the backbone's features of {worst} are not finite; its training diverged, pre-train anew")
        unsaved += [x for x in gather_objects(own) if x is not None]
        done = min(done + step, total)
        if number % spec.runtime["log_every"] == 0 or done == total:
            spec.metrics.log(done, total)
        (stop,) = any_rank([spec.stop_requested], device)
        if stop or done == total or time.monotonic() - saved_at > spec.runtime["checkpoint_seconds"]:
            rows.append(_save(spec, torch.cat(unsaved), done))
            unsaved, saved_at = [], time.monotonic()
        if stop:
            raise Stopped
    return torch.cat(rows) if rows else torch.empty(0)


def _own_part(images: range) -> range:
    """What of a step's images is this rank's: contiguous, and perhaps nothing in the last step."""
    return images[len(images) * rank() // world_size() : len(images) * (rank() + 1) // world_size()]


@torch.no_grad()
def _pool(backbone: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    maps = backbone(images.to(device, memory_format=torch.channels_last))  # (B, C, h, w)
    pooled: Tensor = maps.float().mean(dim=(2, 3)).cpu()  # (B, C)
    return pooled


class _CentralCrops(Dataset[Tensor]):
    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return central_view(read_rgb(self.paths[index]), self.size)


# Rows are saved once, in files that lie behind each other: a checkpoint does not grow with what was done before.


def _save(spec: Spec, rows: Tensor, done: int) -> Tensor:
    if spec.is_first_rank:
        first = done - len(rows)
        save_whole(spec.out / f"checkpoint-{first:012d}.pt", {"first": first, "rows": rows, "settings": spec.settings})
        write_json(spec.out / SIDECAR, {"step": done})
    return rows


def _resume(spec: Spec) -> list[Tensor]:
    """Rows of earlier attempts up to the first gap or damaged file; what lies behind it is deleted.

    The first rank alone has any.
    """
    rows: list[Tensor] = []
    if not spec.is_first_rank:
        return rows
    files, done = sorted(spec.out.glob("checkpoint-*.pt")), 0
    for path in files:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for a damaged file
            print(f"checkpoint {path} is damaged ({type(error).__name__}); going on from image {done}")
            state = {"first": None}
        if state["first"] != done:
            break
        refuse_other_settings(spec, state["settings"])
        rows.append(state["rows"])
        done += len(state["rows"])
    for path in files[len(rows) :]:
        path.unlink()
    if done:
        print(f"resumed from image {done}")
    spec.metrics.drop_after(done)
    return rows


if __name__ == "__main__":
    sys.exit(run_stage(features))
