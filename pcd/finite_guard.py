"""Stops a run before a step that is not finite can reach the weights, and keeps what is needed to look into it."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from pcd.checkpoint import save_whole
from pcd.distributed import any_rank, rank
from pcd.errors import PCDError
from pcd.images import TwoViewBatch
from pcd.stage import Spec
from pcd.training_state import TrainingState

__all__ = ["NotFiniteError", "StepGuard"]

_SKIPS_IN_A_ROW: Final = 20
"""fp16 finds the scale of its loss by overflowing; after so many halvings it is not the scale that is wrong."""


class NotFiniteError(Exception):
    """The first time at a step. A retry goes back to the last checkpoint, which mends what was the machine's fault."""


class StepGuard:
    """Looks at loss and gradient between the backward pass and the step, at the price of one wait for the device."""

    def __init__(self, spec: Spec, state: TrainingState, half: torch.dtype | None) -> None:
        self._spec, self._state = spec, state
        self._precision = {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[half]
        self._skips = 0

    def check(self, step: int, loss: Tensor, parts: Sequence[TwoViewBatch]) -> float:
        """The norm of the whole gradient, which the scaler has to have unscaled before.

        Args:
            parts: the step's batch as it came from the loader; it is captured if the step is not finite.

        Raises:
            NotFiniteError: on every rank, if loss or gradient is not finite on one of them.
            PCDError: the same step was captured before, so going back to the last checkpoint did not help.
        """
        norm = nn.utils.get_total_norm([p.grad for p in self._state.student.parameters() if p.grad is not None])
        bad = (~torch.isfinite(torch.stack([loss, norm]))).tolist()
        loss_is_bad, norm_is_bad = any_rank(bad, loss.device)
        self._skips = self._skips + 1 if norm_is_bad else 0
        may_be_the_scale = self._state.scaler.is_enabled() and self._skips < _SKIPS_IN_A_ROW
        if loss_is_bad or (norm_is_bad and not may_be_the_scale):
            self._stop(step, "loss" if loss_is_bad else "gradient", parts)
        return float(norm)

    def _stop(self, step: int, what: str, parts: Sequence[TwoViewBatch]) -> None:
        path = self._spec.out / f"nonfinite-step{step}-rank{rank()}.pt"
        came_before = path.exists()
        save_whole(path, self._capture(step, parts))
        told = f"the {what} is not finite at step {step}; `pcd replay {path}` shows where it begins"
        if came_before:
            raise PCDError(f"{told}; going back to the last checkpoint did not help: lower optimizer.learning_rate")
        raise NotFiniteError(told)

    def _capture(self, step: int, parts: Sequence[TwoViewBatch]) -> dict[str, Any]:
        """Plain data and tensors, so that it can be loaded in safe mode.

        The weights are those before the step; BatchNorm's running statistics have seen its forward passes. Weights and
        the objective's memory are the same on every rank, and the first one alone keeps them.
        """
        shared = {name: getattr(self._state, name).state_dict() for name in ("student", "objective")}
        return (shared if rank() == 0 else {}) | {
            "step": step,
            "settings": self._spec.settings,
            "teacher": str(self._spec.inputs["teacher"]),
            "loss_scale": float(self._state.scaler.get_scale()),
            "precision": self._precision,
            "parts": [_plain(part) for part in parts],
        }


def _plain(batch: Any) -> Any:
    return tuple(_plain(x) for x in batch) if isinstance(batch, tuple) else batch
