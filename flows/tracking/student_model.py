"""A student's backbone as an MLflow model: a traced graph, which loads without this project and without unpickling."""

from pathlib import Path
from typing import Final

from pcd.errors import PCDError

__all__ = ["write_student_model"]

_FILES: Final = ("backbone.safetensors", "backbone_detectron2.pth", "MODEL_CARD.md")
"""Of the pre-training, laid into the model's `extra_files/` for torchvision, timm and Detectron2."""

_EXAMPLE: Final = (2, 3, 64, 96)
"""A size of 1 would be traced as a constant, and so would equal ones be as equal."""
_PROOF: Final = (1, 3, 128, 64)
"""Another size, which the graph has to take as well: what a trace fixes, it fixes silently."""


def write_student_model(student: str, pretrain: Path, folder: Path) -> None:
    """Write into `folder` what `mlflow.pytorch.load_model` gives as (B, 3, H, W) -> (B, C, H/32, W/32).

    Args:
        student: its name, of pcd.students.
        pretrain: finished pre-training of the store.

    Raises:
        PCDError: the backbone's file is gone or another student's, or the graph does not do what the backbone does.
    """
    # Late: torch and MLflow's part for it take seconds, and only a benchmark with something new to register pays them.
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from pcd.export import load_backbone, load_exactly
    from pcd.students import build_student

    backbone = build_student(student).eval()
    load_exactly(backbone, load_backbone(pretrain / "backbone.safetensors"))
    images, maps = (TensorSpec(np.dtype("float32"), (-1, c, -1, -1)) for c in (3, backbone.channels))
    mlflow.pytorch.save_model(
        backbone, str(folder),
        signature=ModelSignature(inputs=Schema([images]), outputs=Schema([maps])),
        input_example=np.zeros(_EXAMPLE, np.float32),
        serialization_format="pt2",
        pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
        extra_files=[str(pretrain / name) for name in _FILES if (pretrain / name).exists()],
    )  # fmt: skip
    proof = torch.linspace(-2, 2, torch.Size(_PROOF).numel()).reshape(_PROOF)
    with torch.no_grad():
        told, meant = mlflow.pytorch.load_model(str(folder))(proof), backbone(proof)
    if told.shape != meant.shape or not torch.allclose(told, meant, rtol=1e-4, atol=1e-5):
        raise PCDError(f"the traced graph of {student} is another function than the student")
