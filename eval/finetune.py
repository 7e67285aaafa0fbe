"""Detection fine-tuning as a stage process: `python -m eval.finetune SPEC`, alone or under `torchrun`.

Reads `inputs.data` (data.json) and, unless the arm starts at random, `inputs.backbone` (backbone.safetensors); writes
metrics.jsonl, checkpoint.pt while it runs, predictions.json and result.json with the AP figures.
"""

import json
import sys
from typing import Any

import torch

from eval.data import read_data_set
from eval.departures import departures
from eval.finetune_settings import FinetuneSettings
from pcd.distributed import process_group, world_size
from pcd.errors import PCDError
from pcd.export import load_backbone, load_exactly
from pcd.gpu_memory import peak_gpu_memory
from pcd.stage import Spec, run_stage
from pcd.students import build_student
from pcd.weights_hash import weights_sha256

__all__ = ["finetune"]


def finetune(spec: Spec) -> dict[str, Any]:
    """Build, prove that the backbone arrived and that the recipe is the one meant, train, evaluate."""
    import eval.detectron.backbone as d2_backbone
    from eval.detectron.before_training import check_recipe
    from eval.detectron.config import build_config
    from eval.detectron.data import register_split
    from eval.detectron.effective_rank import map_ranks
    from eval.detectron.evaluate import evaluate_detector
    from eval.detectron.frozen import freeze_backbone
    from eval.detectron.precise_bn import count_statistics_anew
    from eval.detectron.train import build_detector, train_detector

    settings = FinetuneSettings.model_validate(spec.settings["finetune"])
    seed: int = spec.settings["seed"]
    data = read_data_set(spec.inputs["data"], spec.runtime.get("data_places"))
    torch.set_num_threads(spec.runtime["threads"])
    with process_group(spec.runtime["device"], found_result=spec.found_result) as device:
        _check_batch(settings)
        torch.manual_seed(seed)
        name: str = spec.settings["student"]
        student = build_student(name)
        if "backbone" in spec.inputs:
            load_exactly(student, load_backbone(spec.inputs["backbone"] / "backbone.safetensors", name))

        sync_norm = world_size() > 1 and device.type == "cuda"
        cfg = build_config(settings, name, len(data.categories), str(device), sync_norm)
        detector = build_detector(cfg, settings)
        matched = d2_backbone.load_into_detector(detector, student.state_dict())
        seen = [image["file_name"] for image in json.loads(data.val.annotations.read_text())["images"]]
        difference = d2_backbone.check_features_equal(detector, student, data.val.images / seen[0], cfg.INPUT.FORMAT)
        print(f"{matched} backbone tensors matched; features differ by {difference:.1e} of their scale at most")
        ranks: dict[str, float] = {}
        if spec.is_first_rank:
            ranks = map_ranks(detector, data.val.images, seen, cfg.INPUT.FORMAT)
            print("effective ranks of its maps: " + ", ".join(f"{name} {rank:.0f}" for name, rank in ranks.items()))
        if settings.freeze_backbone:
            freeze_backbone(detector)
        recipe = check_recipe(detector, settings, data, sync_norm)
        if recipe["masks"]:
            cfg.INPUT.MASK_FORMAT = recipe["masks"]

        train_name = register_split(data.train)
        train_detector(cfg, detector, settings, train_name, seed, spec)
        count_statistics_anew(cfg, detector, settings, train_name, seed, spec)
        metrics: dict[str, float | None] = {}
        if spec.is_first_rank:
            val_name = register_split(data.val)
            metrics = evaluate_detector(cfg, detector, val_name, spec, settings.score_by, data.folder)
    return {
        "metrics": metrics,
        "protocol": {"name": settings.base, "difference": departures(settings)},
        "recipe": recipe,
        "weights_sha256": weights_sha256(detector.state_dict()),
        **peak_gpu_memory(device),
        "iterations": settings.iterations,
        "matched_tensors": matched,
        "feature_difference": difference,
        **{f"effective_rank_{name}": rank for name, rank in ranks.items()},
    }


def _check_batch(settings: FinetuneSettings) -> None:
    if settings.batch % world_size():
        raise PCDError(
            f"a batch of {settings.batch} does not divide among {world_size()} processes; choose another number in "
            f"runtime.processes, or scale the protocol to it: protocols.NAME.world_size={world_size()}"
        )


if __name__ == "__main__":
    sys.exit(run_stage(finetune))
