"""Which number format a processor should compute in."""

import torch

from pcd.settings import Precision

__all__ = ["autocast_type"]


def autocast_type(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type for torch.autocast, or None for plain fp32.

    `auto` takes bf16 where there are instructions for it: on CUDA as PyTorch reports, on the CPU AVX-512 BF16 or AMX.
    """
    if precision == "fp16":
        return torch.float16
    if precision == "bf16" or (precision == "auto" and _gains_from_bf16(device)):
        return torch.bfloat16
    return None


def _gains_from_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
