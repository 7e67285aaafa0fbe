"""What a run took of its GPU, beside the `peak_memory_mb` that every stage's result has."""

import torch

__all__ = ["peak_gpu_memory"]


def peak_gpu_memory(device: torch.device) -> dict[str, int]:
    """{"peak_gpu_memory_mb": …}, the most that this rank's tensors took at once, MiB; nothing on the CPU."""
    return {"peak_gpu_memory_mb": torch.cuda.max_memory_allocated(device) // 2**20} if device.type == "cuda" else {}
