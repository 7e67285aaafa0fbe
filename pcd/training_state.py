"""All that a pre-training run changes while it runs, saved and restored as one."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcd.checkpoint import save_checkpoint
from pcd.distributed import gather_objects, rank
from pcd.objective import Objective
from pcd.resume import load_own_checkpoint
from pcd.stage import Spec
from pcd.students import Student

__all__ = ["TrainingState"]


@dataclass(slots=True)
class TrainingState:
    """Order and views of the images depend on (seed, epoch, image) alone, so no sampler's position has to be kept."""

    student: Student
    objective: Objective
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def save(self, spec: Spec, step: int, notes: dict[str, Any]) -> None:
        """`notes`: plain data that the run wants back. All ranks have to call this, the first one writes."""
        random_states = gather_objects(_random_states())
        if spec.is_first_rank:
            state = {name: getattr(self, name).state_dict() for name in self.__slots__}
            state |= {"step": step, "settings": spec.settings, "random": random_states, "notes": notes}
            save_checkpoint(spec.out / "checkpoint.pt", state, spec.runtime["keep_checkpoints"])

    def resume(self, spec: Spec) -> tuple[int, dict[str, Any]]:
        """Load the last checkpoint, if there is one; returns the step to go on from, and the notes.

        Raises PCDError if it was made with other settings.
        """
        state = load_own_checkpoint(spec)
        if state is None:
            return 0, {}
        for name in self.__slots__:
            getattr(self, name).load_state_dict(state[name])
        if rank() < len(state["random"]):
            _restore_random_states(state["random"][rank()])
        return int(state["step"]), state["notes"]


def _random_states() -> dict[str, Tensor]:
    """Nothing in the loop draws from them today; a student with dropout would."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_states(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
