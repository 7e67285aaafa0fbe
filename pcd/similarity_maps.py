"""Whether the student's pixels find the teacher's: cosines between their maps, as a figure and a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from pcd.evaluation_mode import evaluation_mode
from pcd.grid import fit_grid
from pcd.stage import write_json
from pcd.students import Student
from pcd.views import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["pixel_similarities", "share_found", "write_similarity_maps"]

_SHOWN: Final = 4


def pixel_similarities(maps: Tensor, others: Tensor) -> Tensor:
    """Cosines of each pixel of one map with each of the other map of the same image.

    Args:
        maps, others: (N, C, h, w) each, nothing normalised.

    Returns:
        (N, h*w, h*w), float32: pixels of `maps`, then of `others`.
    """
    vectors, other_vectors = (F.normalize(of.float().flatten(2), dim=1) for of in (maps, others))  # (N, C, h*w)
    return torch.einsum("nci,ncj->nij", vectors, other_vectors)


def share_found(similarities: Tensor) -> float:
    """Of the pixels whose most similar pixel of the other map lies at their own place; by chance 1 / (h*w) would."""
    own = torch.arange(similarities.shape[1], device=similarities.device)
    return float((similarities.argmax(dim=2) == own).float().mean())


def write_similarity_maps(
    student: Student, teacher: Callable[[Tensor], Tensor], images: Tensor, folder: Path,
    half: torch.dtype | None = None,
) -> dict[str, float]:  # fmt: skip
    """Leave similarity_maps.json and similarity_maps.png in `folder`; the student is left as it was.

    Args:
        teacher: (N, 3, H, W) -> (N, C, h', w'), of as many channels as the student's output; brought to its grid.
        images: (N, 3, H, W), normalised; see pcd.receptive_field.probe_images. Both networks see the same.
        half: what both compute in under autocast; None is fp32.

    Returns:
        Figures by name: the share of pixels that find their own place in the teacher's map, and that by chance.
    """
    device = next(student.parameters()).device
    with evaluation_mode(student), torch.no_grad(), torch.autocast(device.type, half, enabled=half is not None):
        seen = images.to(device)
        maps = student.forward(seen)  # a compiled student would be compiled anew for these few images
        aims = fit_grid(teacher(seen), *maps.shape[2:])
    grid = (int(maps.shape[2]), int(maps.shape[3]))
    to_teacher, of_teacher = (pixel_similarities(of.float(), aims.float()).cpu() for of in (maps, aims))
    found, chance = share_found(to_teacher), 1 / (grid[0] * grid[1])
    write_json(
        folder / "similarity_maps.json",
        {"images": len(images), "image_size": list(images.shape[2:]), "grid": grid, "found": found, "chance": chance},
    )
    _draw(images, to_teacher, of_teacher, grid, folder / "similarity_maps.png")
    return {"similarity/own place found": found, "similarity/by chance": chance}


def _draw(images: Tensor, to_teacher: Tensor, of_teacher: Tensor, grid: tuple[int, int], path: Path) -> None:
    """A row for each of the first images: the image, and where its middle pixel is found by each network."""
    from matplotlib.figure import Figure  # late: only this picture needs it
    from matplotlib.patches import Rectangle

    count, (h, w), (height, width) = min(_SHOWN, len(images)), grid, images.shape[2:]
    row, column = h // 2, w // 2
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (IMAGENET_MEAN, IMAGENET_STD))
    figure = Figure(figsize=(7.6, 2.3 * count + 0.3), layout="constrained")
    panels = figure.subplots(count, 3, squeeze=False)
    for title, axes in zip(("image", "student's pixel in teacher", "teacher's own pixel"), panels[0], strict=True):
        axes.set_title(title, fontsize=10)
    for i, axes in enumerate(panels):
        axes[0].imshow((images[i].cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy())
        corner, size = (column * width / w - 0.5, row * height / h - 0.5), (width / w, height / h)
        axes[0].add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=1.5))
        cosines = [of[i, row * w + column].view(h, w) for of in (to_teacher, of_teacher)]
        low = min(float(of.min()) for of in cosines)  # one scale for a row, so that its two maps can be compared
        for panel, of in zip(axes[1:], cosines, strict=True):
            shown = panel.imshow(of.numpy(), cmap="viridis", vmin=low, vmax=1)
            panel.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1.5))
        figure.colorbar(shown, ax=axes[2], label="cosine")
        for panel in axes:
            panel.set_axis_off()
    figure.savefig(path, dpi=110)
