"""How many directions the pixels of a backbone's maps use, before a detector trains on them.

Maps whose pixels all say nearly the same have lost what a detector needs, however low the loss was that they were
trained by. The measure is RankMe's (arXiv 2210.02885, equations 1 and 2): of N vectors with the singular values s_k,

    p_k = s_k / sum_j s_j + 1e-7        rank = exp( - sum_k p_k log p_k )

which is at most their number of channels. There the vectors are the embeddings of 25,600 images; here they are the
pixels of some evaluation images, so that ranks compare between backbones that saw the same ones.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from detectron2.data.detection_utils import read_image
from torch import Tensor

from eval.detectron.backbone import maps_of, to_tensor

__all__ = ["effective_rank", "map_ranks"]

_IMAGES: Final = 128
_EPSILON: Final = 1e-7


def effective_rank(second_moment: Tensor) -> float:
    """RankMe of the vectors x whose sum of x x^T is `second_moment` (C, C), fp64; its eigenvalues are the s_k^2.

    0 for vectors that are all 0.
    """
    singular = torch.linalg.eigvalsh(second_moment).clamp(min=0).sqrt()
    if not singular.any():
        return 0.0
    shares = singular / singular.sum() + _EPSILON
    return float(torch.exp(-(shares * shares.log()).sum()))


@torch.no_grad()
def map_ranks(detector: Any, images: Path, file_names: Sequence[str], image_format: str) -> dict[str, float]:
    """Of res2 … res5 (C4: res4 and res5), each over all pixels of the same images, in evaluation mode.

    Images are read as eval.detectron.backbone's check reads them, one at a time and not scaled.

    Args:
        images: the folder of `file_names`, of which at most 128 from all over the list are taken.
    """
    chosen = file_names[:: -(-len(file_names) // _IMAGES)]
    was_training = detector.training
    detector.eval()
    moments: dict[str, Tensor] = {}
    for name in chosen:
        image = to_tensor(read_image(str(images / name), format=image_format))
        for stage, maps in maps_of(detector, detector.preprocess_image([{"image": image}]).tensor).items():
            pixels = maps[0].flatten(1).double()  # (C, H * W)
            moments[stage] = moments.get(stage, 0) + pixels @ pixels.T
    detector.train(was_training)
    return {stage: effective_rank(moment) for stage, moment in moments.items()}
