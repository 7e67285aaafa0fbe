"""What is checked, told and kept before the first step: a recipe that is off by one of these trains, and is just worse.

Tensors and features are eval.detectron.backbone's; here stand the annotations, the pixels, the normalisation and the
length of the training.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from detectron2.data.detection_utils import read_image
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm
from torch import nn

from eval.data import DataSet
from eval.datasets.cityscapes_score import MISSING_SCRIPTS, has_scripts
from eval.departures import other_share, protocol_line
from eval.detectron.backbone import backbone_modules
from eval.finetune_settings import FinetuneSettings
from pcd.distributed import rank, world_size
from pcd.errors import PCDError

__all__ = ["check_annotations", "check_normalisation", "check_pixels", "check_recipe"]

MaskFormat = Literal["polygon", "bitmask"]

_LOOKED_AT: Final = 16
_LARGEST_MEAN, _STD_RANGE = 3.0, (0.02, 5.0)
"""Of normalised pixels, where photographs have about 0 and 1: generous, for a set of drawings or X-rays is no fault."""

_NORMS: Final = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, FrozenBatchNorm2d)
_SPANNING: Final = (nn.SyncBatchNorm, NaiveSyncBatchNorm)


def check_recipe(detector: Any, settings: FinetuneSettings, data: DataSet, spans_ranks: bool) -> dict[str, Any]:
    """Check annotations, pixels and normalisation, print what was found and how the protocol departs from its name.

    Args:
        spans_ranks: whether BatchNorm has to be one over several GPUs.

    Returns:
        What the result keeps: `norms`, `pixels` (mean, std), `images` that training sees, `masks` (how they are read),
        `epochs`, `parameters`, and as `departures` a line for each way in which the run is not what its settings say.
    """
    file_names, masks = check_annotations(settings, data)
    norms = check_normalisation(detector, settings, spans_ranks)
    pixels = check_pixels(detector, data.train.images, file_names)
    departs = _departures(settings, masks, spans_ranks)
    if rank() == 0:
        print("\n".join([*_told(settings, norms, pixels, len(file_names)), *departs]))
    return {
        "norms": norms,
        "pixels": pixels,
        "images": len(file_names),
        "masks": masks,
        "departures": departs,
        "epochs": round(settings.batch * settings.iterations / len(file_names), 3),
        "parameters": sum(parameter.numel() for parameter in detector.parameters()),
    }


def _told(
    settings: FinetuneSettings, norms: dict[str, dict[str, int]], pixels: dict[str, list[float]], images: int
) -> list[str]:
    found = "; ".join(
        f"{part} {', '.join(f'{count} {kind}' for kind, count in kinds.items()) or 'none'}"
        for part, kinds in norms.items()
    )
    epochs = settings.batch * settings.iterations / images
    return [
        protocol_line(settings),
        f"{settings.batch} images x {settings.iterations} iterations = {epochs:.3g} epochs of {images} images; "
        f"learning rate {settings.learning_rate:g} after {settings.warmup_iterations} iterations of warm-up "
        f"from {settings.warmup_factor:g} of it",
        f"normalisation, {'the backbone as a whole' if settings.freeze_backbone else 'none of it'} frozen: {found}",
        f"pixels of the training images, normalised: mean {pixels['mean']}, std {pixels['std']}",
    ]


def _departures(settings: FinetuneSettings, masks: MaskFormat | None, spans_ranks: bool) -> list[str]:
    found, ranks = [], world_size()
    if masks == "bitmask" and settings.base:
        found.append("masks are read as bitmaps, as some are no polygons; Detectron2's recipes read polygons")
    if ranks > 1 and not spans_ranks:
        found.append(
            f"each BatchNorm is of the {settings.batch // ranks} images of its process, not of all {settings.batch}: "
            f"{ranks} processes on the CPU share none"
        )
    share = other_share(settings, ranks)
    return [*found, share] if share else found


def check_annotations(settings: FinetuneSettings, data: DataSet) -> tuple[list[str], MaskFormat | None]:
    """Files of the training images with an object, as training leaves the others out; and how masks are to be read.

    That is as polygons where all of them are, crowds apart, as Detectron2 does; None where none is trained.

    Raises PCDError if there is none, the architecture needs masks and an object has none, the evaluation needs a set of
    another kind, or it is not installed.
    """
    if data.score is None or settings.score_by not in ("coco", data.score):
        kind = data.score or "classes of images"
        raise PCDError(
            f"the set {data.name} is of kind {kind}, which score_by {settings.score_by} cannot judge; name another set"
        )
    if settings.score_by == "cityscapes" and not has_scripts():  # after the training would be late to say so
        raise PCDError(f"{MISSING_SCRIPTS}, and fine-tune again")
    coco = json.loads(data.train.annotations.read_text())
    objects = _objects(coco)
    if not objects:
        raise PCDError(f"{data.train.annotations} has no object to train on; bring other annotations")
    if settings.has_masks:
        _check_masks(settings, data.train.annotations, objects)
        _check_masks(settings, data.val.annotations, _objects(json.loads(data.val.annotations.read_text())))
    seen = {a["image_id"] for a in objects}
    file_names = [image["file_name"] for image in coco["images"] if image["id"] in seen]
    if not settings.has_masks:
        return file_names, None
    return file_names, "polygon" if all(isinstance(a["segmentation"], list) for a in objects) else "bitmask"


def _objects(coco: dict[str, Any]) -> list[dict[str, Any]]:
    return [a for a in coco["annotations"] if not a.get("iscrowd", 0)]


def _check_masks(settings: FinetuneSettings, annotations: Path, objects: list[dict[str, Any]]) -> None:
    if bare := sum(not a.get("segmentation") for a in objects):
        raise PCDError(
            f"{bare} of {len(objects)} objects in {annotations} have no mask, and {settings.architecture} "
            f"needs them; set the protocol's architecture to {settings.architecture.replace('mask', 'faster')}"
        )


def check_pixels(detector: Any, images: Path, file_names: list[str]) -> dict[str, list[float]]:
    """Mean and std of the channels of some training images, normalised by the detector: about 0 and 1 in photographs.

    Raises PCDError if they are far from that: the set's values do not run from 0 to 255, as the normalisation takes it.
    """
    chosen = file_names[:: max(1, len(file_names) // _LOOKED_AT)][:_LOOKED_AT]
    mean, std = detector.pixel_mean.cpu().flatten(), detector.pixel_std.cpu().flatten()
    count, first, second = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for name in chosen:
        pixels = torch.from_numpy(np.array(read_image(str(images / name), format=detector.input_format)))  # (H, W, 3)
        normalised = ((pixels - mean) / std).double().flatten(0, 1)  # (H * W, 3)
        count += len(normalised)
        first += normalised.sum(0)
        second += normalised.square().sum(0)
    means = first / count
    stds = (second / count - means.square()).clamp(min=0).sqrt()
    if not (means.abs().max() < _LARGEST_MEAN and _STD_RANGE[0] < stds.min() and stds.max() < _STD_RANGE[1]):
        raise PCDError(
            f"the pixels of {len(chosen)} images in {images} have mean {_short(means)} and std {_short(stds)} once "
            "normalised, where photographs have about 0 and 1; are these 8-bit RGB images?"
        )
    return {"mean": [round(x, 3) for x in means.tolist()], "std": [round(x, 3) for x in stds.tolist()]}


def check_normalisation(
    detector: nn.Module, settings: FinetuneSettings, spans_ranks: bool
) -> dict[str, dict[str, int]]:
    """Part of the detector to the kinds of normalisation in it and their number.

    Raises PCDError if a part is frozen that the protocol trains, or learns where the protocol freezes it, or its
    BatchNorm is of one process where it has to span all of them.
    """
    backbone = {id(p) for module in backbone_modules(detector) for p in module.parameters()}
    kept = backbone if settings.freeze_backbone else set()
    named = dict(detector.named_parameters())
    wrong = [name for name, parameter in named.items() if parameter.requires_grad == (id(parameter) in kept)]
    wrong += [name for name, module in detector.named_modules() if isinstance(module, FrozenBatchNorm2d)]
    if wrong:
        asked = "the backbone alone" if settings.freeze_backbone else "nothing"
        raise PCDError(
            f"the protocol freezes {asked}, and {len(wrong)} parts of the detector are not so (first: {wrong[0]}); "
            "nothing was trained"
        )
    kinds: dict[str, Counter[str]] = {"backbone": Counter(), "pyramid": Counter(), "heads": Counter()}
    for name, module in detector.named_modules():
        if isinstance(module, _NORMS):
            kinds[_part_of(name, settings)][type(module).__name__] += 1
            of_batches = isinstance(module, nn.modules.batchnorm._BatchNorm)
            if spans_ranks and of_batches and not isinstance(module, _SPANNING):
                raise PCDError(f"{name} is a BatchNorm of one GPU's images, not of all; nothing was trained")
    return {part: dict(found) for part, found in kinds.items()}


def _part_of(name: str, settings: FinetuneSettings) -> str:
    if name.startswith(("backbone.fpn_lateral", "backbone.fpn_output")):
        return "pyramid"
    is_res5 = name.startswith("roi_heads.res5.") and not settings.has_pyramid
    return "backbone" if name.startswith("backbone.") or is_res5 else "heads"


def _short(values: torch.Tensor) -> str:
    return " ".join(f"{x:.2f}" for x in values.tolist())
