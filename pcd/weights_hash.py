"""One hash over a network's tensors: two runs with the same one have the same weights, bit for bit."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["weights_sha256"]


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, type, shape and bytes of each tensor, in the order of names; on whatever device they lie."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # (bytes): numpy knows no bfloat16
    return digest.hexdigest()
