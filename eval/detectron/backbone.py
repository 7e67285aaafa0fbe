"""The student's weights in a detector, and the proof that they compute the same there.

A detector whose backbone was silently not loaded, or sees BGR, still trains; its AP is just wrong. So every tensor must
match, and the features on a real image must be equal, before the first step.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import read_image
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from eval.detectron.c4_heads import EXTRA_NORM
from eval.detectron.student_backbone import StudentBackbone
from pcd.backbones import Backbone
from pcd.errors import PCDError
from pcd.export import to_detectron2_name
from pcd.views import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["backbone_modules", "check_features_equal", "load_into_detector", "maps_of", "to_tensor"]


def load_into_detector(detector: Any, tensors: Mapping[str, Tensor]) -> int:
    """Load a student's tensors, under its own names, wherever the detector has them; returns how many matched.

    Raises:
        PCDError: a tensor is missing, left over, or of another shape.
    """
    expected = _backbone_state(detector)
    renamed = tensors if _is_student(detector) else {to_detectron2_name(n): tensor for n, tensor in tensors.items()}
    missing, extra = expected.keys() - renamed.keys(), renamed.keys() - expected.keys()
    wrong = [n for n in expected.keys() & renamed.keys() if expected[n].shape != renamed[n].shape]
    if missing or extra or wrong:
        raise PCDError(
            f"the backbone does not fit the detector: {len(missing)} tensors missing, {len(extra)} left over, "
            f"{len(wrong)} of another shape (first: {sorted([*missing, *extra, *wrong])[0]}); "
            "were these weights pre-trained with another student?"
        )
    with torch.no_grad():
        for name, tensor in renamed.items():
            expected[name].copy_(tensor)
    return len(renamed)


def backbone_modules(detector: Any) -> list[nn.Module]:
    """Those that a pre-trained backbone fills: all of it in one, or of a C4 detector also the blocks of res5."""
    trunk = _trunk(detector)
    return [trunk, *(_res5_blocks(detector) if trunk is detector.backbone else [])]


def _res5_blocks(detector: Any) -> list[nn.Module]:
    """Without the BatchNorm that the detector puts behind them."""
    return [block for name, block in detector.roi_heads.res5.named_children() if name != EXTRA_NORM]


def _trunk(detector: Any) -> Any:
    """What stands under the pyramid; of a C4 detector all but res5, which is its heads'."""
    return detector.backbone.bottom_up if hasattr(detector.backbone, "bottom_up") else detector.backbone


def _is_student(detector: Any) -> bool:
    return isinstance(_trunk(detector), StudentBackbone)


def _backbone_state(detector: Any) -> dict[str, Tensor]:
    """The detector's own tensors that a pre-trained backbone fills, without their place in it."""
    trunk = _trunk(detector)
    if isinstance(trunk, StudentBackbone):
        return dict(trunk.student.state_dict())
    state: dict[str, Tensor] = dict(trunk.state_dict())
    if trunk is detector.backbone:
        deepest = detector.roi_heads.res5.state_dict()
        state |= {f"res5.{n}": x for n, x in deepest.items() if not n.startswith(f"{EXTRA_NORM}.")}
    return state


def maps_of(detector: Any, images: Tensor) -> dict[str, Tensor]:
    """res2 … res5 as far as the detector computes them on whole images; of a C4 detector res4, and res5 on top."""
    trunk = _trunk(detector)
    maps: dict[str, Tensor] = trunk(images)
    if trunk is detector.backbone:
        maps = maps | {"res5": nn.Sequential(*_res5_blocks(detector))(maps["res4"])}
    return maps


@torch.no_grad()
def check_features_equal(detector: Any, student: Backbone, image_path: Path, image_format: str = "RGB") -> float:
    """Compare res2 … res5 of the detector's backbone (C4: res4 and res5) with the student's own on one image.

    The student's side reads the file as RGB and normalises it here as in pre-training; Detectron2's side reads it in
    `image_format` and preprocesses it by itself. So a difference in channel order, mean or std is caught as well.

    Returns:
        The largest difference, relative to the largest feature of its map.

    Raises:
        PCDError: it is above 1e-4, what fp32 leaves between two orders of summation.
    """
    with Image.open(image_path) as file:
        image = to_tensor(np.asarray(file.convert("RGB")))
    image_as_detectron_reads_it = to_tensor(read_image(str(image_path), format=image_format))

    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    was_training = detector.training
    detector.eval()
    own = student.eval().stages(((image / 255 - mean) / std)[None])
    with torch.backends.cudnn.flags(allow_tf32=False):  # on a GPU, TF32 alone would differ by more than the limit
        seen = detector.preprocess_image([{"image": image_as_detectron_reads_it}]).tensor
        theirs = maps_of(detector, seen)
    detector.train(was_training)

    worst = max(float((theirs[n].cpu() - own[n]).abs().max() / own[n].abs().max()) for n in theirs)
    if not worst < 1e-4:
        raise PCDError(
            f"Detectron2's features differ from the student's by {worst:.2g} of their scale on {image_path.name}; "
            "the detector would not start from the pre-trained backbone, so nothing was trained"
        )
    return worst


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) -> (3, H', W') of floats, cut to multiples of 32 (a smaller side is padded), as the strides ask."""
    height, width = (32 * max(1, side // 32) for side in pixels.shape[:2])
    lacking = [(0, max(0, 32 - side)) for side in pixels.shape[:2]]
    cut = np.pad(pixels, [*lacking, (0, 0)], mode="edge")[:height, :width]
    return torch.tensor(np.ascontiguousarray(cut)).permute(2, 0, 1).float()
