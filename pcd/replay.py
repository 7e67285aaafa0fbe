"""Compute a captured step again and say where its first number that is not finite appears."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pcd.checkpoint import load_checkpoint
from pcd.errors import PCDError
from pcd.images import batch_from_plain
from pcd.networks import build_pair, hasten
from pcd.objective import load_objective
from pcd.settings import PretrainSettings
from pcd.teachers import TEACHERS
from pcd.training_loss import training_loss, views_of

__all__ = ["Replay", "replay"]

_TYPES: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What came out of a captured step."""

    step: int
    precision: str
    loss: float
    gradient_norm: float
    first_module: str | None
    """The first module of student or teacher whose output is not finite, in the order of computation."""
    weights: tuple[str, ...]
    """Weights that were not finite before the step. BatchNorm's running statistics have seen its forward passes."""
    gradients: tuple[str, ...]
    """Parameters whose gradient is not finite."""

    def describe(self) -> dict[str, Any]:
        return asdict(self)


def replay(path: Path, precision: Literal["as captured", "fp32", "bf16", "fp16"] = "as captured") -> Replay:
    """Run the step of a `nonfinite-….pt` file once, on the CPU, in the number format it was captured in or another.

    Of a run over several ranks it is one rank's share, with BatchNorm over that share alone.

    Raises PCDError if the file is missing or no capture, or its teacher is gone.
    """
    captured = load_checkpoint(path)
    if captured is None or "parts" not in captured:
        raise PCDError(f"{path} is no captured step; the pre-training names the file when it stops")
    captured = _shared(path, captured) | captured
    settings = PretrainSettings.model_validate(captured["settings"]["pretrain"])
    teacher, student = build_pair(
        Path(captured["teacher"]), captured["settings"]["teacher"], settings, captured["settings"]["seed"]
    )
    entry, seed = TEACHERS[captured["settings"]["teacher"]], captured["settings"]["seed"]
    objective = load_objective(settings.objective)(settings, entry, student, seed, steps=1)
    objective.load_state_dict(captured["objective"])
    student.load_state_dict(captured["student"])
    student.train()
    broken: list[str] = []
    used = captured["precision"] if precision == "as captured" else precision
    scale = captured["loss_scale"] if used == "fp16" else 1.0
    loss = torch.zeros(())
    hasten(teacher, _TYPES[used])
    with _watched(nn.ModuleDict({"student": student, "teacher": teacher}), broken):
        for plain in captured["parts"]:
            views = views_of(batch_from_plain(plain), torch.device("cpu"))
            with torch.autocast("cpu", _TYPES[used], enabled=used != "fp32"):
                part, _ = training_loss(student, teacher, objective, *views)
            (part * scale / len(captured["parts"])).backward()
            loss += part.detach() / len(captured["parts"])
    gradients = {name: p.grad / scale for name, p in student.named_parameters() if p.grad is not None}
    return Replay(
        step=captured["step"],
        precision=used,
        loss=loss.item(),
        gradient_norm=float(nn.utils.get_total_norm(gradients.values())),
        first_module=broken[0] if broken else None,
        weights=_not_finite({name: x for name, x in captured["student"].items() if ".running_" not in name}),
        gradients=_not_finite(gradients),
    )


def _shared(path: Path, captured: dict[str, Any]) -> dict[str, Any]:
    """Weights and the objective's memory, which only the first rank's file holds."""
    if "student" in captured:
        return {}
    first = path.with_name(f"nonfinite-step{captured['step']}-rank0.pt")
    saved = load_checkpoint(first)
    if saved is None:
        raise PCDError(f"{first} is gone, which holds the weights for {path.name} as well; put it beside it")
    return {name: saved[name] for name in ("student", "objective")}


@contextmanager
def _watched(model: nn.Module, broken: list[str]) -> Iterator[None]:
    """Append the name of every innermost module whose output is not finite, as it computes."""

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                broken.append(name)

        return look

    hooks = [
        module.register_forward_hook(watch(name))
        for name, module in model.named_modules()
        if not list(module.children())
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _not_finite(tensors: dict[str, Tensor]) -> tuple[str, ...]:
    return tuple(name for name, tensor in tensors.items() if not tensor.isfinite().all())
