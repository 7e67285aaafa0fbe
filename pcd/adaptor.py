"""SpatialAdaptor: the teacher's vector head applied to a map, without changing what it says (arXiv 2211.00218)."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["SpatialAdaptor"]


class SpatialAdaptor(nn.Module):
    """Applies a head that was trained on average-pooled vectors to every pixel of a map.

    Linear becomes a 1x1 convolution with the same weight, and BatchNorm the same affine map of each pixel with its
    running statistics. The activation is gated by the *pooled* pre-activation m = mean over pixels of x:

        ReLU: x * 1[m > 0]    (allo-rene/pcd@6b0ad4d)        GELU: x * Phi(m)    (ours)

    Each layer then commutes with the mean over pixels, so that, exactly,

        mean over pixels of adaptor(F) = head(mean over pixels of F)    for every map F.

    That identity is what the adaptor is for, and its test. A ReLU of each pixel breaks it, and so does a BatchNorm in
    train mode: the head stays in eval mode whatever `train()` is called with, and takes no gradient.

    `gate="pixel"` lets each pixel gate its own activation all the same: the ablation that shows what the identity is
    worth (the arm pcd-no-adaptor).
    """

    def __init__(self, head: nn.Sequential, gate: Literal["pooled", "pixel"] = "pooled") -> None:
        """Raises TypeError on a layer that is none of Linear, BatchNorm1d, ReLU, exact GELU and Identity."""
        super().__init__()
        self.gate = gate
        for layer in head:
            _check_layer(layer)
        self.head = head.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "SpatialAdaptor":
        return super().train(False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H, W)."""
        x = maps
        for layer in self.head:
            x = _apply_to_pixels(layer, x, self.gate == "pooled")
        return x


def _check_layer(layer: nn.Module) -> None:
    if isinstance(layer, nn.GELU) and layer.approximate != "none":
        raise TypeError("SpatialAdaptor gates GELU by the exact normal distribution; got the tanh approximation")
    if isinstance(layer, nn.BatchNorm1d) and layer.running_mean is None:
        raise TypeError("SpatialAdaptor needs BatchNorm1d with running statistics; this one tracks none")
    if not isinstance(layer, nn.Linear | nn.BatchNorm1d | nn.ReLU | nn.GELU | nn.Identity):
        raise TypeError(
            f"SpatialAdaptor takes Linear, BatchNorm1d, ReLU, GELU and Identity; got {type(layer).__name__}"
        )


def _apply_to_pixels(layer: nn.Module, x: Tensor, is_pooled: bool) -> Tensor:
    match layer:
        case nn.Linear():
            return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)
        case nn.BatchNorm1d():
            return F.batch_norm(
                x, layer.running_mean, layer.running_var, layer.weight, layer.bias, training=False, eps=layer.eps
            )
        case nn.ReLU():
            return x * (_pooled(x) > 0) if is_pooled else layer(x)
        case nn.GELU():
            return x * _normal_cdf(_pooled(x)) if is_pooled else layer(x)
        case _:  # Identity, as __init__ has checked
            return x


def _pooled(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)  # (B, C, 1, 1)


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + (x / 2**0.5).erf())
