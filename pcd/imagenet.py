"""ImageNet's mean and standard deviation of red, green and blue, 0 to 1, by which nearly all networks take images."""

from typing import Final

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD"]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
