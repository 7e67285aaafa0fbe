"""Settings of the data and of the fine-tuning protocols: validated once, here."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from pcd.settings import Settings, setting

__all__ = ["DETECTOR_STUDENTS", "CocoData", "DataSettings", "DataStageSettings", "FinetuneSettings", "ShapesData"]

DETECTOR_STUDENTS: Final = ("resnet18", "resnet34", "resnet50")
"""The students that Detectron2 can take as its backbone so far (eval.detectron.config)."""


class ShapesData(Settings):
    """The procedural set; the same settings draw the same images on every machine."""

    kind: Literal["shapes"] = "shapes"
    size: int = setting(128, "side of an image, pixels", "ours", ge=32, le=1024)
    seed: int = setting(0, "of all images", "ours", ge=0)
    pool: int = setting(4000, "unlabelled images for pre-training", "ours", ge=1)
    train: int = setting(300, "labelled images for fine-tuning", "ours", ge=1)
    val: int = setting(150, "labelled images for evaluation", "ours", ge=1)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


Folder = Annotated[Path, AfterValidator(_absolute)]


class CocoData(Settings):
    """Images and COCO annotations of the user's own; nothing is copied."""

    kind: Literal["coco"] = "coco"
    pool: Folder = Field(
        description="unlabelled images: a folder, subfolders included (ImageNet's train folder); "
        "or tar shards: their folder, or a pattern such as shards/train-*.tar"
    )
    train_images: Folder = Field(description="folder of the labelled training images")
    train_annotations: Folder = Field(description="COCO JSON of the training images")
    val_images: Folder = Field(description="folder of the evaluation images")
    val_annotations: Folder = Field(description="COCO JSON of the evaluation images")


DataSettings = Annotated[ShapesData | CocoData, Field(discriminator="kind")]


class DataStageSettings(Settings):
    """What the data stage's spec holds."""

    data: DataSettings


Positive = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=32)]


class FinetuneSettings(Settings):
    """One protocol: Detectron2's Mask R-CNN with an FPN over the student's backbone.

    Defaults are Detectron2's 1x schedule for COCO with BatchNorm trained everywhere; the paper's abstract does not
    state its schedule. Normalisation is SyncBN over several GPUs and BatchNorm on one device.
    """

    iterations: int = setting(90_000, "steps of the optimizer", "ours", ge=1)
    batch: int = setting(16, "images of one step over all processes", "ours", ge=1)
    optimizer: Literal["sgd", "adamw"] = setting("sgd", "optimizer", "ours")
    learning_rate: float = setting(0.02, "peak, for the batch as it is", "ours", gt=0)
    weight_decay: float = setting(1e-4, "not applied to biases and normalisation", "ours", ge=0)
    schedule: Literal["steps", "cosine"] = setting("steps", "fall of the learning rate behind the warm-up", "ours")
    decay_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = setting(
        (2 / 3, 8 / 9), "`steps`: shares of the iterations behind which it falls to a tenth (60k, 80k of 90k)", "ours"
    )
    warmup_iterations: int = setting(1000, "linear rise of the learning rate", "ours", ge=0)
    clip_gradient_norm: float = setting(0.0, "largest norm of the whole gradient; 0: no limit", "ours", ge=0)
    train_sizes: Annotated[tuple[Pixels, ...], Field(min_length=1)] = setting(
        (640, 672, 704, 736, 768, 800), "shorter side in training, pixels", "ours"
    )
    test_size: int = setting(800, "shorter side in evaluation, pixels", "ours", ge=32)
    max_size: int = setting(1333, "longest side, pixels", "ours", ge=32)
    fpn_channels: int = setting(256, "channels of every pyramid level", "ours", ge=8)
    anchor_sizes: tuple[Positive, ...] = setting((32, 64, 128, 256, 512), "one per level from p2 on, pixels", "ours")
    proposals_before_nms: tuple[Positive, Positive] = setting((2000, 1000), "per level, training and test", "ours")
    proposals: tuple[Positive, Positive] = setting((1000, 1000), "per image, training and test", "ours")
    rois_per_image: int = setting(512, "sampled proposals that train the heads", "ours", ge=1)
    box_head_width: int = setting(1024, "channels of the box head's two layers", "ours", ge=8)
    mask_head_convs: int = setting(4, "convolutions of the mask head", "ours", ge=1)
    mask_head_width: int = setting(256, "channels of the mask head", "ours", ge=8)
    roi_sampling_ratio: int = setting(0, "samples per RoIAlign bin and axis; 0: as many as its size asks", "ours", ge=0)
    detections_per_image: int = setting(100, "kept for evaluation", "ours", ge=1)
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "fp32", "of the backbone and FPN; auto: bf16 if faster", "ours"
    )

    @model_validator(mode="after")
    def _levels_and_warm_up_fit(self) -> "FinetuneSettings":
        if not 1 <= len(self.anchor_sizes) <= 5:
            raise ValueError(f"anchor_sizes needs one size for each of p2 to p6 at most, got {len(self.anchor_sizes)}")
        if self.warmup_iterations >= self.iterations:
            raise ValueError(
                f"warm-up takes {self.warmup_iterations} of {self.iterations} iterations; lower warmup_iterations"
            )
        return self
