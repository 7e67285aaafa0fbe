"""A detector whose backbone learns nothing: its AP says what pre-training left, and not what fine-tuning made of it.

"Proper Reuse of Image Classification Features Improves Object Detection" (Vasconcelos et al. 2022, arXiv 2204.00484)
trains detectors so, with larger heads.
"""

from typing import Any

from eval.detectron.backbone import backbone_modules

__all__ = ["freeze_backbone", "to_training_mode"]


def freeze_backbone(detector: Any) -> None:
    """Take everything that came from the student out of the training, in place; what stands on it goes on learning."""
    for module in backbone_modules(detector):
        module.requires_grad_(False)


def to_training_mode(detector: Any) -> None:
    """As `detector.train()`, but a frozen backbone goes by the statistics of BatchNorm that it came with."""
    detector.train()
    for module in backbone_modules(detector):
        if not any(parameter.requires_grad for parameter in module.parameters()):
            module.eval()
