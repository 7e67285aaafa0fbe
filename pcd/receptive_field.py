"""The effective receptive field of a student, with and without the self-attention plug-in: figures and a picture."""

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcd.decode import UnreadableImageError, decode_rgb
from pcd.errors import PCDError
from pcd.evaluation_mode import evaluation_mode
from pcd.image_sources import ImageSource
from pcd.stage import write_json
from pcd.students import Student
from pcd.views import central_view

__all__ = ["effective_receptive_field", "probe_images", "smallest_square", "write_receptive_field"]

_SHARES: Final = (0.5, 0.95)
_IMAGES: Final = 8


def effective_receptive_field(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """How much each input pixel moves the output's central pixel, on average over the images.

    The gradient of the central pixel, summed over its channels, with respect to the input (Luo et al. 2016,
    arXiv 1701.04128); its absolute value, summed over colours, averaged over images, scaled to a sum of 1.

    Call it with a network in eval mode: in train mode BatchNorm ties the images of a batch together.

    Args:
        network: (N, 3, H, W) -> (N, C, h, w); its pixel (h // 2, w // 2) is looked at.

    Returns:
        (H, W), float32, on the CPU. No parameter's gradient is touched.
    """
    images = images.detach().float().requires_grad_()
    maps = network(images)
    centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2].sum()  # images do not mix: one gradient for each
    (gradient,) = torch.autograd.grad(centre, images)
    total = gradient.abs().sum(dim=(0, 1)).cpu()  # (H, W)
    return total / total.sum().clamp_min(torch.finfo(total.dtype).tiny)  # all zero where nothing moves the output


def smallest_square(share: float, field: Tensor) -> tuple[int, int, int]:
    """The smallest square window that holds this share of `field`, (S, S): its side, first row and first column.

    It may lie anywhere: where in the image an output pixel looks depends on how the network pads.
    """
    if field.shape[0] != field.shape[1]:
        raise ValueError(f"the field is not square: {tuple(field.shape)}")
    integral = F.pad(field.double().cumsum(0).cumsum(1), (1, 0, 1, 0))  # (S + 1, S + 1)

    def windows(side: int) -> Tensor:
        """What each window of this side holds: (S + 1 - side, S + 1 - side)."""
        below, above = integral[side:], integral[:-side]
        return below[:, side:] - below[:, :-side] - above[:, side:] + above[:, :-side]

    wanted = share * float(integral[-1, -1]) - 1e-9
    side = 1 + bisect_left(range(1, len(field)), wanted, key=lambda side: float(windows(side).max()))
    row, column = divmod(int(windows(side).argmax()), len(field) + 1 - side)
    return side, row, column


def probe_images(source: ImageSource, size: int) -> Tensor:
    """A few images from all over the pool, (N, 3, S, S); S is `size`, or 32 more where the map had an odd side.

    Pixel n/2 of n looks at the very centre where strides of 2 are padded alike on both sides, as in the ResNets. If
    none of the images that it would choose can be read, those behind them are taken.

    Raises PCDError if the pool has none that can be read.
    """
    size += size % 64
    stride = -(-len(source) // _IMAGES)
    for offset in range(stride):
        views = []
        for index in range(offset, len(source), stride):
            with contextlib.suppress(OSError, UnreadableImageError):  # training has counted and named it
                views.append(central_view(decode_rgb(source.read(index)), size))
        if views:
            return torch.stack(views)
    raise PCDError("no image of the pool can be read any more, not even for a picture; check the pool")


def write_receptive_field(student: Student, images: Tensor, folder: Path) -> dict[str, float]:
    """Leave receptive_field.json and receptive_field.png in `folder`; the student is left as it was.

    Args:
        images: (N, 3, H, W), normalised; see probe_images.

    Returns:
        Figures by name: the side of the smallest square that holds a half (or 95 %) of the field, as share of the
        image's side; of the backbone alone, and with the attention if the student has it.
    """
    device = next(student.parameters()).device
    networks: dict[str, Callable[[Tensor], Tensor]] = {"backbone": student.backbone}
    if not isinstance(student.attention, nn.Identity):
        networks["with attention"] = lambda x: student.attention(student.backbone(x))
    with evaluation_mode(student), torch.enable_grad():
        fields = {name: effective_receptive_field(network, images.to(device)) for name, network in networks.items()}
    squares = {name: {share: smallest_square(share, field) for share in _SHARES} for name, field in fields.items()}
    record: dict[str, Any] = {"images": len(images), "image_size": list(images.shape[2:])}
    record |= {
        name.replace(" ", "_"): {f"side_{100 * share:g}": side for share, (side, _, _) in of.items()}
        for name, of in squares.items()
    }
    write_json(folder / "receptive_field.json", record)
    _draw(fields, squares, folder / "receptive_field.png")
    return {
        f"receptive field/{name}, {share:.0%}": side / images.shape[-1]
        for name, of in squares.items()
        for share, (side, _, _) in of.items()
    }


def _draw(
    fields: Mapping[str, Tensor], squares: Mapping[str, Mapping[float, tuple[int, int, int]]], path: Path
) -> None:
    from matplotlib.figure import Figure  # late: only this picture needs it
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(4.2 * len(fields), 4.4), layout="constrained")
    for axes, (name, field) in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields.items(), strict=True):
        # The fourth root, since a field spans orders of magnitude; each panel to its own peak.
        axes.imshow((field / field.max()).pow(0.25).numpy(), cmap="viridis", vmin=0, vmax=1)
        for share, (side, row, column) in squares[name].items():
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.2))
            axes.annotate(f" {share:.0%}", corner, color="white", fontsize=8, va="top")
        told = ", ".join(f"{share:.0%} in {side} px" for share, (side, _, _) in squares[name].items())
        axes.set_title(f"{name}\n{told} of {field.shape[1]}", fontsize=10)
        axes.set_axis_off()
    figure.savefig(path, dpi=110)
