"""The views of allo-rene/pcd@6b0ad4d as released: Pillow and torchvision, one image at a time, in 8 bits.

Training does not use them: they are what pcd.views and pcd.photometric are tested to equal and measured against.
"""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from pcd.settings import ViewSettings
from pcd.views import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["PilTwoViews"]


class PilTwoViews:
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
