"""What follows from the global batch: steps and learning rate."""

from dataclasses import dataclass

from pcd.errors import PCDError
from pcd.settings import PretrainSettings

__all__ = ["StepPlan", "plan_steps"]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A run in steps. The global batch decides; the number of ranks changes nothing."""

    total: int
    per_epoch: int
    warmup: int
    peak_learning_rate: float


def plan_steps(settings: PretrainSettings, images: int, ranks: int) -> StepPlan:
    """Raises PCDError if the pool is smaller than a batch, the batch does not divide, or there is no step to make."""
    batch, parts = settings.global_batch, settings.accumulation
    if images < batch:
        raise PCDError(
            f"the pool has {images} images, fewer than one global batch of {batch}; "
            "lower pretrain.global_batch or add images"
        )
    if batch % (ranks * parts):
        among = f"{ranks} processes" + (f" times {parts} parts (accumulation)" if parts > 1 else "")
        raise PCDError(f"a global batch of {batch} does not divide among {among}; choose a multiple")
    if batch // parts < 2:
        raise PCDError(f"BatchNorm needs 2 images at once; a global batch of {batch} in {parts} parts leaves 1")
    per_epoch = images // batch
    total = round(settings.epochs * per_epoch)
    if total == 0:
        raise PCDError(
            f"{settings.epochs:g} epochs over {images} images are no whole step of {batch}; raise pretrain.epochs"
        )
    return StepPlan(
        total=total,
        per_epoch=per_epoch,
        warmup=round(settings.optimizer.warmup_epochs * total / settings.epochs),
        peak_learning_rate=settings.optimizer.learning_rate * batch / 256,
    )
