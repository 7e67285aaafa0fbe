"""One update of the student by one global batch."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pcd.distributed import gather
from pcd.finite_guard import StepGuard
from pcd.images import TwoViewBatch
from pcd.teachers import Teacher
from pcd.training_loss import training_loss, views_of
from pcd.training_state import TrainingState

__all__ = ["StepMaker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMaker:
    """Changes `state` step by step."""

    state: TrainingState
    replica: nn.Module
    """The state's student, or what sums its gradients over the ranks."""
    teacher: Teacher
    guard: StepGuard
    half: torch.dtype | None
    """Of autocast; None: fp32 throughout."""
    device: torch.device

    def take(self, step: int, parts: Sequence[TwoViewBatch]) -> tuple[Tensor, float]:
        """One step by the optimizer's learning rate.

        Args:
            parts: this rank's share of the global batch, in the parts that it is computed in.

        Returns:
            The mean loss of this rank's share, (), and the norm of the whole gradient.

        Raises what StepGuard.check does, before anything reaches the weights.
        """
        state, scaler = self.state, self.state.scaler
        state.optimizer.zero_grad(set_to_none=True)
        loss, remembered = torch.zeros((), device=self.device), []
        for part in parts:
            views = views_of(part, self.device)
            with _ranks_meet(self.replica, part is parts[-1]):
                with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
                    part_loss, vectors = training_loss(self.replica, self.teacher, state.objective, *views)
                scaler.scale(part_loss / len(parts)).backward()
            loss += part_loss.detach() / len(parts)
            remembered.append([gather(part_vectors) for part_vectors in vectors])  # as the global batch is ordered
        scaler.unscale_(state.optimizer)
        gradient_norm = self.guard.check(step, loss, parts)
        scaler.step(state.optimizer)
        scaler.update()
        state.objective.after_step(
            state.student, tuple(torch.cat(of_parts) for of_parts in zip(*remembered, strict=True))
        )
        return loss, gradient_norm


def _ranks_meet(replica: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Gradients are summed over the ranks once a step, in the backward pass of its last part."""
    return replica.no_sync() if isinstance(replica, DistributedDataParallel) and not now else nullcontext()
