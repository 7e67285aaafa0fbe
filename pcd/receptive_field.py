"""The effective receptive field of a student, with and without the self-attention plug-in: figures and a picture."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from pcd.decode import UnreadableImageError, decode_rgb
from pcd.errors import PCDError
from pcd.evaluation_mode import evaluation_mode
from pcd.image_sources import ImageSource
from pcd.stage import write_json
from pcd.students import Student
from pcd.views import central_view

__all__ = ["effective_receptive_field", "probe_images", "side_holding", "write_receptive_field"]

_SHARES: Final = (0.5, 0.95)
_IMAGES: Final = 8


def effective_receptive_field(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """How much each input pixel moves the output's central pixel, on average over the images.

    The gradient of the central pixel, summed over its channels, with respect to the input (Luo et al. 2016,
    arXiv 1701.04128); its absolute value, summed over colours, averaged over images, scaled to a sum of 1.

    Call it with a network in eval mode: in train mode BatchNorm ties the images of a batch together.

    Args:
        network: (N, 3, H, W) -> (N, C, h, w); with h and w odd there is a pixel in the very centre.

    Returns:
        (H, W), float32, on the CPU. No parameter's gradient is touched.
    """
    images = images.detach().float().requires_grad_()
    maps = network(images)
    centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2].sum()  # images do not mix: one gradient for each
    (gradient,) = torch.autograd.grad(centre, images)
    total = gradient.abs().sum(dim=(0, 1)).cpu()  # (H, W)
    return total / total.sum().clamp_min(torch.finfo(total.dtype).tiny)  # all zero where nothing moves the output


def side_holding(share: float, field: Tensor) -> int:
    """The side, in pixels, of the smallest centred square that holds this share of `field`, (H, W) of sum 1."""
    rows, columns = (torch.arange(n) - (n - 1) / 2 for n in field.shape)
    distance = torch.maximum(rows.abs()[:, None], columns.abs()[None])  # (H, W), of a pixel's centre from the centre
    inside, order = distance.flatten().sort()
    held = field.double().flatten()[order].cumsum(0)
    place = int(torch.searchsorted(held, min(share, float(held[-1]))))
    return round(2 * float(inside[place])) + 1


def probe_images(source: ImageSource, size: int) -> Tensor:
    """A few images from all over the pool, (N, 3, S, S); S is `size`, or 32 more where the map had no central pixel.

    Raises PCDError if none of them can be read.
    """
    size = size if size // 32 % 2 else size + 32
    views = []
    for index in range(0, len(source), -(-len(source) // _IMAGES)):
        with contextlib.suppress(OSError, UnreadableImageError):  # training has counted and named it
            views.append(central_view(decode_rgb(source.read(index)), size))
    if not views:
        raise PCDError("none of the images chosen for the receptive field can be read; check the pool")
    return torch.stack(views)


def write_receptive_field(student: Student, images: Tensor, folder: Path) -> dict[str, float]:
    """Leave receptive_field.json and receptive_field.png in `folder`; the student is left as it was.

    Args:
        images: (N, 3, H, W), normalised; see probe_images.

    Returns:
        Figures by name: the side of the centred square that holds a half (or 95 %) of the field, as share of the
        image's side; of the backbone alone, and with the attention if the student has it.
    """
    device = next(student.parameters()).device
    networks: dict[str, Callable[[Tensor], Tensor]] = {"backbone": student.backbone}
    if not isinstance(student.attention, nn.Identity):
        networks["with attention"] = lambda x: student.attention(student.backbone(x))
    with evaluation_mode(student), torch.enable_grad():
        fields = {name: effective_receptive_field(network, images.to(device)) for name, network in networks.items()}
    sides = {name: {share: side_holding(share, field) for share in _SHARES} for name, field in fields.items()}
    record: dict[str, Any] = {"images": len(images), "image_size": list(images.shape[2:])}
    record |= {
        name.replace(" ", "_"): {f"side_{100 * share:g}": side for share, side in of.items()}
        for name, of in sides.items()
    }
    write_json(folder / "receptive_field.json", record)
    _draw(fields, sides, folder / "receptive_field.png")
    return {
        f"receptive field/{name}, {share:.0%}": side / images.shape[-1]
        for name, of in sides.items()
        for share, side in of.items()
    }


def _draw(fields: Mapping[str, Tensor], sides: Mapping[str, Mapping[float, int]], path: Path) -> None:
    from matplotlib.figure import Figure  # late: only this picture needs it
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(4.2 * len(fields), 4.4), layout="constrained")
    for axes, (name, field) in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields.items(), strict=True):
        height, width = field.shape
        # The fourth root, since a field spans orders of magnitude; each panel to its own peak.
        axes.imshow((field / field.max()).pow(0.25).numpy(), cmap="viridis", vmin=0, vmax=1)
        for share, side in sides[name].items():
            corner = ((width - 1 - side) / 2, (height - 1 - side) / 2)
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.2))
            axes.annotate(f"{share:.0%}", corner, color="white", fontsize=8, va="bottom", annotation_clip=False)
        told = ", ".join(f"{share:.0%} within {side} px" for share, side in sides[name].items())
        axes.set_title(f"{name}\n{told} of {width}", fontsize=10)
        axes.set_axis_off()
    figure.savefig(path, dpi=110)
