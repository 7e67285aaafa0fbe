"""The plug-in that widens the student's receptive field: multi-head self-attention over the pixels of its map."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PixelAttention"]


class PixelAttention(nn.Module):
    """One residual block of multi-head self-attention over h*w tokens, with sine positions.

    The paper's abstract names such a module and the released code leaves it out, so its design is ours. The output
    projection starts at zero: switched on, the block is the identity at step 0. The exported backbone is without it.
    """

    def __init__(self, channels: int, heads: int = 8) -> None:
        """Raises ValueError unless `channels` splits into `heads` and into the four groups of the sine positions."""
        super().__init__()
        if channels % 4:
            raise ValueError(f"{channels} channels do not split into the 4 groups of sine positions")
        if channels % heads:
            valid = ", ".join(str(n) for n in range(1, channels // 4 + 1) if channels % n == 0)
            raise ValueError(f"{channels} channels do not split into {heads} heads; valid: {valid}")
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        b, c, h, w = maps.shape
        tokens = self.norm(maps.flatten(2).transpose(1, 2))  # (B, HW, C)
        tokens = tokens + _sine_positions(h, w, c, maps.device).to(tokens.dtype)
        qkv = self.qkv(tokens).view(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, HW, C / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, HW, C)
        change: Tensor = self.project(mixed).transpose(1, 2).view(b, c, h, w)
        return maps + change


def _sine_positions(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """(H*W, C): a quarter of the channels each for sine and cosine of rows and of columns; works for any map size."""
    frequencies = torch.exp(torch.arange(channels // 4, device=device) * (-math.log(10_000.0) / (channels // 4)))
    rows = torch.arange(height, device=device)[:, None] * frequencies  # (H, C/4)
    columns = torch.arange(width, device=device)[:, None] * frequencies  # (W, C/4)
    rows = torch.cat([rows.sin(), rows.cos()], dim=1)[:, None].expand(-1, width, -1)  # (H, W, C/2)
    columns = torch.cat([columns.sin(), columns.cos()], dim=1)[None].expand(height, -1, -1)  # (H, W, C/2)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
