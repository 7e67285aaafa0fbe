"""Settings of one detector's fine-tuning: validated once, here. What the field calls by a name is in eval.protocols."""

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from pcd.settings import Settings, setting

__all__ = ["C4_STUDENTS", "Architecture", "FinetuneSettings", "ScoreBy"]

C4_STUDENTS: Final = ("resnet18", "resnet34", "resnet50")
"""Those whose last stage can be the head of each region, as C4 asks; an FPN takes every student."""

Architecture = Literal["mask_rcnn_fpn", "mask_rcnn_c4", "faster_rcnn_fpn", "faster_rcnn_c4"]
ScoreBy = Literal["coco", "voc", "cityscapes"]

Positive = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=32)]

_FPN_ALONE: Final = ("fpn_channels", "box_head", "box_head_width", "norm_everywhere")
_MASKS_ALONE: Final = ("mask_head_convs", "mask_head_width")


class FinetuneSettings(Settings):
    """One protocol: a detector of Detectron2's over the student's backbone.

    Defaults are Mask R-CNN with an FPN by Detectron2's 1x schedule for COCO, BatchNorm trained everywhere; the paper's
    abstract does not state its schedule. Normalisation is SyncBN over several GPUs and BatchNorm on one device.
    """

    kind: Literal["detector"] = setting("detector", "a detector is fine-tuned", "ours")
    base: str | None = setting(
        None, "the named protocol that this one is, or departs from; the difference is told and kept", "ours"
    )
    set: str | None = setting(None, "name of the labelled set, of `sets`; none: the benchmark's `data`", "ours")
    score_by: ScoreBy = setting("coco", "whose evaluation gives the figures", "ours")
    architecture: Architecture = setting("mask_rcnn_fpn", "detector, and what of the backbone it stands on", "ours")
    iterations: int = setting(90_000, "steps of the optimizer", "ours", ge=1)
    batch: int = setting(16, "images of one step over all processes", "ours", ge=1)
    optimizer: Literal["sgd", "adamw"] = setting("sgd", "optimizer", "ours")
    learning_rate: float = setting(0.02, "peak, for the batch as it is", "ours", gt=0)
    weight_decay: float = setting(1e-4, "not applied to normalisation; to biases, as Detectron2 does", "ours", ge=0)
    schedule: Literal["steps", "cosine"] = setting("steps", "fall of the learning rate behind the warm-up", "ours")
    decay_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = setting(
        (2 / 3, 8 / 9), "`steps`: shares of the iterations behind which it falls to a tenth (60k, 80k of 90k)", "ours"
    )
    warmup_iterations: int = setting(1000, "linear rise of the learning rate", "ours", ge=0)
    warmup_factor: float = setting(
        0.001, "share of the peak that the rise begins at, as Detectron2's WARMUP_FACTOR", "ours", gt=0, le=1
    )
    clip_gradient_norm: float = setting(0.0, "largest norm of the whole gradient; 0: no limit", "ours", ge=0)
    precise_bn_iterations: int = setting(
        0, "batches that BatchNorm's statistics are counted anew on behind the training; 0: those of the training",
        "ours", ge=0,
    )  # fmt: skip
    train_sizes: Annotated[tuple[Pixels, ...], Field(min_length=1)] = setting(
        (640, 672, 704, 736, 768, 800), "shorter side in training, pixels", "ours"
    )
    test_size: int = setting(800, "shorter side in evaluation, pixels", "ours", ge=32)
    max_size: int = setting(1333, "longest side, pixels", "ours", ge=32)
    fpn_channels: int = setting(256, "FPN: channels of every pyramid level", "ours", ge=8)
    norm_everywhere: bool = setting(
        True, "FPN: BatchNorm in the pyramid and in the heads' convolutions too; false: in the backbone alone", "ours"
    )
    anchor_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = setting(
        (32, 64, 128, 256, 512), "pixels; FPN: one per level from p2 on, C4: all on the one map", "ours"
    )
    proposals_before_nms: tuple[Positive, Positive] = setting((2000, 1000), "per level, training and test", "ours")
    proposals: tuple[Positive, Positive] = setting((1000, 1000), "per image, training and test", "ours")
    rois_per_image: int = setting(512, "sampled proposals that train the heads", "ours", ge=1)
    box_head: Literal["2fc", "4conv1fc"] = setting(
        "2fc", "FPN: two linear layers, or four convolutions and one of them", "ours"
    )
    box_head_width: int = setting(1024, "FPN: channels of the box head's linear layers", "ours", ge=8)
    extra_norm: bool = setting(False, "C4: one more BatchNorm behind res5, as MoCo's detectors have", "ours")
    mask_head_convs: int = setting(4, "Mask R-CNN: convolutions of the mask head; C4 has none", "ours", ge=0)
    mask_head_width: int = setting(256, "Mask R-CNN: channels of the mask head", "ours", ge=8)
    roi_sampling_ratio: int = setting(0, "samples per RoIAlign bin and axis; 0: as many as its size asks", "ours", ge=0)
    detections_per_image: int = setting(100, "kept for evaluation", "ours", ge=1)
    freeze_backbone: bool = setting(
        False, "the backbone learns nothing, nor its BatchNorm's statistics: AP by what pre-training left alone", "ours"
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "fp32", "of the backbone and FPN; auto: bf16 if faster", "ours"
    )

    @property
    def has_masks(self) -> bool:
        return self.architecture.startswith("mask_rcnn")

    @property
    def has_pyramid(self) -> bool:
        return self.architecture.endswith("fpn")

    @model_validator(mode="after")
    def _levels_and_warm_up_fit(self) -> "FinetuneSettings":
        if self.has_pyramid and len(self.anchor_sizes) > 5:
            raise ValueError(f"anchor_sizes needs one size for each of p2 to p6 at most, got {len(self.anchor_sizes)}")
        if self.warmup_iterations >= self.iterations:
            raise ValueError(
                f"warm-up takes {self.warmup_iterations} of {self.iterations} iterations; lower warmup_iterations"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_set_that_the_architecture_lacks(self) -> "FinetuneSettings":
        without = [] if self.has_pyramid else list(_FPN_ALONE)
        without += [] if self.has_masks else list(_MASKS_ALONE)
        without += ["extra_norm"] if self.has_pyramid else []
        idle = [name for name in without if getattr(self, name) != type(self).model_fields[name].default]
        if idle:
            raise ValueError(f"{', '.join(idle)}: {self.architecture} has no such part; leave it out")
        if self.has_pyramid and not self.mask_head_convs:
            raise ValueError("mask_head_convs is 0, which C4 alone knows; choose 1 or more")
        if self.score_by == "cityscapes" and not self.has_masks:
            raise ValueError("score_by cityscapes judges masks; choose a mask_rcnn architecture")
        return self
