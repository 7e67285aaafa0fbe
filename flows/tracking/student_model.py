"""A student's backbone as an MLflow model: a traced graph, which loads without this project and without unpickling."""

from pathlib import Path
from typing import Final

__all__ = ["write_student_model"]

_FILES: Final = ("backbone.safetensors", "backbone_detectron2.pth", "MODEL_CARD.md")
"""Of the pre-training, laid into the model's `extra_files/` for torchvision, timm and Detectron2."""

_EXAMPLE: Final = (2, 3, 64, 96)
"""A size of 1 would be traced as a constant, and so would equal ones be as equal."""


def write_student_model(student: str, pretrain: Path, folder: Path) -> None:
    """Write into `folder` what `mlflow.pytorch.load_model` gives as (B, 3, H, W) -> (B, C, H/32, W/32).

    Args:
        student: its name, of pcd.students.
        pretrain: finished pre-training of the store.

    Raises:
        PCDError: the backbone's file is gone or is another student's.
    """
    # Late: torch and MLflow's part for it take seconds, and only a benchmark with something new to register pays them.
    import mlflow.pytorch
    import numpy as np
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
        pip_requirements=["torch"],
        extra_files=[str(pretrain / name) for name in _FILES if (pretrain / name).exists()],
    )  # fmt: skip
