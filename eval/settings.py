"""Settings of the data: validated once, here."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pcd.settings import AbsolutePath, Settings, setting

__all__ = [
    "CityscapesSet", "ClassSet", "CocoData", "CocoSet", "DataSettings", "DataStageSettings",
    "LabelledSet", "PoolData", "ShapesData", "VocSet",
]  # fmt: skip


class ShapesData(Settings):
    """The procedural set; the same settings draw the same images on every machine."""

    kind: Literal["shapes"] = "shapes"
    size: int = setting(128, "side of an image, pixels", "ours", ge=32, le=1024)
    seed: int = setting(0, "of all images", "ours", ge=0)
    pool: int = setting(4000, "unlabelled images for pre-training", "ours", ge=1)
    pool_of: Literal["scenes", "objects"] = setting(
        "scenes", "what they show: scenes as the labelled ones do, or one large shape each", "ours"
    )
    train: int = setting(300, "labelled images for fine-tuning", "ours", ge=1)
    val: int = setting(150, "labelled images for evaluation", "ours", ge=1)


class PoolData(Settings):
    """Images to pre-train on and no labelled ones: every protocol names one of `sets`."""

    kind: Literal["pool"] = "pool"
    pool: AbsolutePath = Field(description="as of `coco`")


class CocoSet(Settings):
    """Labelled images of the user's own in COCO's format, with masks or with boxes alone; nothing is copied."""

    kind: Literal["coco"] = "coco"
    train_images: AbsolutePath = Field(description="folder of the labelled training images")
    train_annotations: AbsolutePath = Field(description="COCO JSON of the training images")
    val_images: AbsolutePath = Field(description="folder of the evaluation images")
    val_annotations: AbsolutePath = Field(description="COCO JSON of the evaluation images")


class CocoData(CocoSet):
    """The same with a pool of unlabelled images."""

    pool: AbsolutePath = Field(
        description="unlabelled images: a folder, subfolders included (ImageNet's train folder); "
        "or tar shards: their folder, or a pattern such as shards/train-*.tar"
    )


DataSettings = Annotated[ShapesData | CocoData | PoolData, Field(discriminator="kind")]


VocList = Literal[
    "2007_train", "2007_val", "2007_trainval", "2007_test", "2012_train", "2012_val", "2012_trainval", "2012_test"
]
"""A list of images in a VOCdevkit: VOC2007/ImageSets/Main/trainval.txt is 2007_trainval."""


class VocSet(Settings):
    """Pascal VOC's boxes as the devkit unpacks them: VOCdevkit/VOC2007/{Annotations,ImageSets/Main,JPEGImages}.

    Defaults are VOC 07+12, as facebookresearch/moco@90e244a detection/configs/pascal_voc_R_50_C4_24k.yaml has it.
    """

    kind: Literal["voc"] = "voc"
    folder: AbsolutePath = Field(description="the VOCdevkit, with VOC2007 and VOC2012 in it")
    train: tuple[VocList, ...] = setting(
        ("2007_trainval", "2012_trainval"), "lists of training images, YEAR_LIST", "ours"
    )
    val: VocList = setting("2007_test", "list of evaluation images; 2007 is scored by its 11 points of recall", "ours")

    @model_validator(mode="after")
    def _splits_are_apart(self) -> "VocSet":
        if not self.train:
            raise ValueError("train names no list of images")
        if len(set(self.train)) < len(self.train) or self.val in self.train:
            raise ValueError(f"train and val name a list twice: {', '.join((*self.train, self.val))}")
        return self


class CityscapesSet(Settings):
    """Cityscapes' fine annotations as they unpack: leftImg8bit/{train,val}/<city>, gtFine/{train,val}/<city>.

    Needs the extra `cityscapes` for the official evaluation; the test images have no annotations.
    """

    kind: Literal["cityscapes"] = "cityscapes"
    folder: AbsolutePath = Field(description="the folder with leftImg8bit and gtFine in it")


class ClassSet(Settings):
    """Images with one label each, as ImageNet's: train/<class>/ and val/<class>/, subfolders included."""

    kind: Literal["classes"] = "classes"
    folder: AbsolutePath = Field(description="the folder with train and val in it")


LabelledSet = Annotated[CocoSet | VocSet | CityscapesSet | ClassSet, Field(discriminator="kind")]


class DataStageSettings(Settings):
    """What a data stage's spec holds: the benchmark's `data`, or one of its `sets`."""

    data: DataSettings | LabelledSet
