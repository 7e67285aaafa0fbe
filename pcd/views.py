"""Two random views of an image, after allo-rene/pcd@6b0ad4d (the recipe of BYOL and MoCo v3)."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from pcd.settings import ViewSettings

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "TwoViews", "central_view"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class TwoViews:
    """Crop, flip, jitter, grey, blur and solarize an RGB image twice; both draw from torch's current random state."""

    def __init__(self, settings: ViewSettings) -> None:
        self._pipelines = tuple(
            _pipeline(settings, blur, solarize)
            for blur, solarize in zip(settings.blur_probability, settings.solarize_probability, strict=True)
        )

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        """Two (3, size, size) float tensors, normalised by ImageNet's mean and std."""
        first, second = self._pipelines
        return first(image), second(image)


def central_view(size: int) -> v2.Compose:
    """What frozen features are measured on: the shorter side at 256/224 of `size`, its centre cut out; no randomness.

    From an RGB image to a (3, size, size) float tensor, normalised by ImageNet's mean and std.
    """
    return v2.Compose(
        [
            v2.Resize(round(size * 256 / 224)),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def _pipeline(settings: ViewSettings, blur: float, solarize: float) -> v2.Compose:
    # The blur's sigma is meant at 224 pixels; a smaller crop gets the same blur relative to its size.
    scale = settings.size / 224
    sigma = (settings.blur_sigma[0] * scale, settings.blur_sigma[1] * scale)
    kernel = 2 * max(1, round(3 * sigma[1])) + 1  # three sigma to each side
    brightness, contrast, saturation, hue = settings.jitter
    return v2.Compose(
        [
            v2.RandomResizedCrop(settings.size, scale=(settings.min_scale, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(brightness, contrast, saturation, hue)], settings.jitter_probability),
            v2.RandomGrayscale(settings.grayscale_probability),
            v2.PILToTensor(),
            v2.RandomApply([v2.GaussianBlur(kernel, sigma)], blur),
            v2.RandomSolarize(threshold=128, p=solarize),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
