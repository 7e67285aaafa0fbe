"""Settings of the data: validated once, here."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pcd.settings import Settings, setting

__all__ = ["CocoData", "DataSettings", "DataStageSettings", "ShapesData"]


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
