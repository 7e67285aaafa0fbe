"""BatchNorm over the images of all ranks, so that statistics belong to the global batch and not to a rank's share."""

from typing import Any, Final

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from pcd.distributed import sum_over_ranks
from pcd.errors import PCDError

__all__ = ["CpuSyncBatchNorm", "synchronise_norms"]

_AXES: Final = (0, 2, 3)  # all of (B, C, H, W) but the channels


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """What nn.SyncBatchNorm computes, on gloo ranks, where torch's own refuses to work.

    It is there so that a run over several CPU processes is the run that a machine with GPUs makes, and can be compared
    with one process.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); every rank has the same B, H and W."""
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        with torch.autocast(x.device.type, enabled=False):
            count = x.numel() // x.shape[1] * dist.get_world_size()
            mean = _sum_over_ranks(x.float().sum(_AXES)) / count  # (C,)
            centred = x.float() - mean[:, None, None]
            variance = _sum_over_ranks((centred * centred).sum(_AXES)) / count  # (C,), biased
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            scale = self.weight * torch.rsqrt(variance + self.eps)
            return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None]).to(x.dtype)


def _sum_over_ranks(x: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(x)
    return total


class _SumOverRanks(torch.autograd.Function):
    """Every rank's loss depends on every rank's term, so the gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return sum_over_ranks(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return sum_over_ranks(grads[0])


def synchronise_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm of `model` by one that spans the ranks; names and values of its tensors stay.

    Raises PCDError on CPU ranks if a BatchNorm is of a kind that carries more than the normalisation (timm's own).
    """
    if device.type == "cuda":
        synchronised: nn.Module = convert_sync_batchnorm(model)
        return synchronised
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if type(module) is not nn.BatchNorm2d:
                raise PCDError(
                    f"several CPU processes cannot synchronise {name} ({type(module).__name__}); "
                    "set runtime.processes to 1"
                )
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, _spanning(module))
    return model


def _spanning(norm: nn.BatchNorm2d) -> CpuSyncBatchNorm:
    spanning = CpuSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    spanning.load_state_dict(norm.state_dict())
    return spanning.train(norm.training)
