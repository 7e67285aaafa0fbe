"""The photometric half of a view: jitter, grey, blur, solarize, normalise; a whole batch at once, on its own device.

The recipe is that of allo-rene/pcd@6b0ad4d (BYOL's and MoCo v3's). Workers draw the parameters, which are small; the
operations run where the batch is trained on. They compute in floats, so they round once where the recipe's 8-bit
images round after each operation.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pcd.settings import ViewSettings
from pcd.views import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["PhotometricParameters", "draw_parameters", "photometric"]

TOGETHER: Final = {"cpu": 1, "cuda": 256}
"""Images at a time: on the CPU one stays in the cache; a GPU wants many, and memory for a few copies of them."""


class PhotometricParameters(NamedTuple):
    """What is done to each view of a batch; without the first dimension, to one view."""

    brightness: Tensor
    """(B,) float32: factor, 1 for none. So are contrast and saturation."""
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    """(B,) float32: shift in turns of the colour circle, -0.5 to 0.5."""
    order: Tensor
    """(B, 4) uint8: which comes when; 0 brightness, 1 contrast, 2 saturation, 3 hue."""
    jittered: Tensor
    """(B,) bool: whether those four apply at all."""
    grey: Tensor
    """(B,) bool."""
    blur_sigma: Tensor
    """(B,) float32: pixels of the view; 0: not blurred."""
    solarized: Tensor
    """(B,) bool."""


def draw_parameters(random: np.random.Generator, settings: ViewSettings, view: int) -> PhotometricParameters:
    """Of one view, 1 or 2. Always draws the same number of random numbers.

    The blur's sigma is meant at 224 pixels; a smaller view gets the same blur relative to its size.
    """
    draws = random.random(13).tolist()
    places, (jittered, grey, blurred, strength, solarized) = draws[4:8], draws[8:]
    *strengths, shift = settings.jitter
    ranges = [*((max(0, 1 - s), 1 + s) for s in strengths), (-shift, shift)]
    least, largest = settings.blur_sigma
    sigma = (least + (largest - least) * strength) * settings.size / 224
    values = [low + (high - low) * draw for (low, high), draw in zip(ranges, draws, strict=False)]
    values.append(sigma if blurred < settings.blur_probability[view - 1] else 0.0)
    switches = (
        jittered < settings.jitter_probability,
        grey < settings.grayscale_probability,
        solarized < settings.solarize_probability[view - 1],
    )
    brightness, contrast, saturation, hue, blur_sigma = torch.tensor(values, dtype=torch.float32).unbind()
    is_jittered, is_grey, is_solarized = torch.tensor(switches).unbind()
    order = torch.tensor(sorted(range(4), key=places.__getitem__), dtype=torch.uint8)
    return PhotometricParameters(
        brightness, contrast, saturation, hue, order, is_jittered, is_grey, blur_sigma, is_solarized
    )


@torch.no_grad()
def photometric(pixels: Tensor, parameters: PhotometricParameters, dtype: torch.dtype = torch.float32) -> Tensor:
    """Apply the parameters and normalise by ImageNet's mean and standard deviation.

    Args:
        pixels: (B, 3, S, S) uint8, on any device.
        parameters: of those B views; best left on the CPU, since the host sorts the views by what is done to them.
        dtype: of the result; computed in float32.

    Returns:
        (B, 3, S, S) on the device of `pixels`. On the CPU an image's result depends on that image alone, bit for bit.
    """
    device = pixels.device
    host = PhotometricParameters._make(values.cpu() for values in parameters)
    steps = _steps(host, device)
    scale = (1 / torch.tensor(IMAGENET_STD, device=device))[:, None, None]
    shift = -torch.tensor(IMAGENET_MEAN, device=device)[:, None, None] * scale
    result = torch.empty(pixels.shape, dtype=dtype, device=device)
    together = TOGETHER.get(device.type, 256)
    with torch.autocast(device.type, enabled=False):
        for start in range(0, len(pixels), together):
            chunk = slice(start, start + together)
            images = pixels[chunk].to(torch.float32, memory_format=torch.contiguous_format).div_(255)
            for operation, mask, strength in steps:
                _apply(operation, images, np.flatnonzero(mask[chunk]), strength[chunk])
            result[chunk] = images.mul_(scale).add_(shift)
    return result


Operation = Callable[[Tensor, Tensor], None]
"""Changes (N, 3, S, S) in place, by a strength (N, 1, 1, 1) for each."""
Step = tuple[Operation, NDArray[np.bool_], Tensor]
"""An operation, which of the batch it applies to, and how strongly."""


def _steps(parameters: PhotometricParameters, device: torch.device) -> list[Step]:
    """In order of time; the four jitters at each of their four possible places."""
    p = parameters
    strengths = torch.stack((p.brightness, p.contrast, p.saturation, p.hue, p.blur_sigma))
    *factors, sigma = strengths.to(device, non_blocking=True)[..., None, None, None]
    order, jittered = p.order.numpy(), p.jittered.numpy()
    operations = (_brighten, _contrast, _saturate, _shift_hue)
    steps: list[Step] = [
        (operation, jittered & (order[:, place] == code), factor)
        for place in range(4)
        for code, (operation, factor) in enumerate(zip(operations, factors, strict=True))
    ]
    return [
        *steps,
        (_turn_grey, p.grey.numpy(), sigma),
        (_blur, p.blur_sigma.numpy() > 0, sigma),
        (_solarize, p.solarized.numpy(), sigma),
    ]


def _apply(operation: Operation, images: Tensor, rows: NDArray[np.intp], strength: Tensor) -> None:
    if len(rows) == len(images):
        operation(images, strength)
    elif len(rows):
        index = torch.from_numpy(rows).to(images.device, non_blocking=True)
        part = images[index]
        operation(part, strength[index])
        images[index] = part


def _grey(images: Tensor) -> Tensor:
    """(N, 3, S, S) -> (N, 1, S, S): luma by ITU-R 601, as Pillow's mode L."""
    red, green, blue = images.split(1, dim=1)
    luma: Tensor = (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return luma


def _brighten(images: Tensor, factor: Tensor) -> None:
    images.mul_(factor).clamp_(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> None:
    mean = _grey(images.mean(dim=(2, 3), keepdim=True))  # (N, 1, 1, 1)
    images.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def _saturate(images: Tensor, factor: Tensor) -> None:
    grey = _grey(images).mul_(1 - factor)
    images.mul_(factor).add_(grey).clamp_(0, 1)


def _turn_grey(images: Tensor, _: Tensor) -> None:
    images.copy_(_grey(images).expand_as(images))


def _solarize(images: Tensor, _: Tensor) -> None:
    # Values from 128 on are inverted; 127.5 is where rounding starts to make them. |x - [x >= 1/2]| does it.
    images.sub_(torch.ge(images, 0.5, out=torch.empty_like(images))).abs_()


def _shift_hue(images: Tensor, turns: Tensor) -> None:
    """Through hue, saturation and value, without building the last two.

    With the largest value M, the smallest m and C = M - m, a channel whose own colour lies at hue o is
    m + C clamp(6 |frac(hue - o) - 1/2| - 1, 0, 1): 1 around its colour, 0 around the opposite one.
    Masks are floats: comparing into bytes and choosing by them is several times slower on the CPU.
    """
    red, green, blue = images.unbind(dim=1)  # (N, S, S)
    largest, least = images.amax(dim=1), images.amin(dim=1)
    chroma = largest - least
    is_red = torch.ge(red, largest, out=torch.empty_like(red))
    is_green = torch.ge(green, largest, out=torch.empty_like(red))
    hue = (red - green).add_(chroma, alpha=4)  # in sixths of a turn, times the chroma
    hue.lerp_((blue - red).add_(chroma, alpha=2), is_green).lerp_(green - blue, is_red)
    hue.div_((chroma * 6).clamp_min_(1e-6))
    # One turn is added so that frac() sees no negative number.
    offsets = 1 + turns + torch.tensor((0, 2 / 3, 1 / 3), device=images.device)[:, None, None]  # (N, 3, 1, 1)
    distance = (hue[:, None] + offsets).frac_().sub_(0.5).abs_().clamp_(1 / 6, 1 / 3)
    torch.addcmul((least * 2 - largest)[:, None], distance, (chroma * 6)[:, None], out=images)


def _blur(images: Tensor, sigma: Tensor) -> None:
    """Gaussian, three sigma to each side, the border reflected; rows and columns one after the other."""
    if images.device.type == "cpu":
        for image, own in zip(images, sigma.flatten().tolist(), strict=True):
            image.copy_(_blur_by_taps(image, own))
    else:
        matrices = _blur_matrices(sigma[:, 0], images.shape[-1])[:, None]  # (N, 1, S, S)
        images.copy_(matrices @ images @ matrices.mT)


def _blur_by_taps(image: Tensor, sigma: float) -> Tensor:
    """(3, S, S) -> the same: one scaled addition for each weight, which runs at the speed of the cache."""
    reach, size = math.ceil(3 * sigma), image.shape[-1]
    weights = [math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(-reach, reach + 1)]
    total = sum(weights)
    image = F.pad(image, (reach,) * 4, mode="reflect")
    for dim in (1, 2):
        blurred = image.narrow(dim, 0, size) * (weights[0] / total)
        for tap, weight in enumerate(weights[1:], start=1):
            blurred.add_(image.narrow(dim, tap, size), alpha=weight / total)
        image = blurred
    return image


def _blur_matrices(sigma: Tensor, size: int) -> Tensor:
    """(N, 1, 1) -> (N, size, size): what each pixel of a row gives to each; the same weights, reflected ones added."""
    place = torch.arange(size, device=sigma.device)
    source, target = place[None, :], place[:, None]
    ghosts = ((source, source >= 0), (-source, source > 0), (2 * (size - 1) - source, source < size - 1))
    total = torch.zeros(len(sigma), size, size, device=sigma.device)
    for mirrored, exists in ghosts:
        distance = (mirrored - target).abs()
        total += torch.exp(-0.5 * (distance / sigma) ** 2) * (exists & (distance <= torch.ceil(3 * sigma)))
    return total / total.sum(dim=2, keepdim=True)
