"""Where each kind of labelled set keeps its parts: read by plans too, so nothing heavy is imported."""

from collections.abc import Iterator
from pathlib import Path

from eval.settings import CityscapesSet, ClassSet, CocoSet, LabelledSet, VocSet
from pcd.errors import PCDError

__all__ = [
    "annotation_files", "cityscapes_pairs", "image_folders", "places_of", "require_folder", "voc_departure",
    "voc_images", "voc_lists", "voc_parts",
]  # fmt: skip

_IMAGE_END, _TRUTH_END = "_leftImg8bit.png", "_gtFine_instanceIds.png"


def image_folders(settings: LabelledSet) -> dict[str, Path]:
    """train_images and val_images: what the file names of the splits' annotations are relative to."""
    match settings:
        case CocoSet():
            return {"train_images": settings.train_images, "val_images": settings.val_images}
        case VocSet():
            return {"train_images": settings.folder, "val_images": settings.folder}
        case CityscapesSet():
            return {f"{split}_images": settings.folder / "leftImg8bit" / split for split in ("train", "val")}
        case ClassSet():
            return {f"{split}_images": settings.folder / split for split in ("train", "val")}


def places_of(settings: LabelledSet) -> dict[str, str]:
    """Where the set's parts lie on this machine, for eval.data.read_data_set."""
    if isinstance(settings, CocoSet):
        return {name: str(path) for name, path in settings if isinstance(path, Path)}
    return {"folder": str(settings.folder), **{name: str(path) for name, path in image_folders(settings).items()}}


def annotation_files(settings: LabelledSet) -> dict[str, list[Path]]:
    """`train` and `val` to the files that hold their annotations, in an order that says which image is which.

    Raises:
        PCDError: a folder, a list or a file that it names is missing.
    """
    match settings:
        case CocoSet():
            return {"train": [settings.train_annotations], "val": [settings.val_annotations]}
        case VocSet():
            lists = {"train": settings.train, "val": (settings.val,)}
            return {split: list(_voc_files(settings.folder, names)) for split, names in lists.items()}
        case CityscapesSet():
            return {
                split: [truth for _, truth in cityscapes_pairs(settings.folder, split)] for split in ("train", "val")
            }
        case ClassSet():
            return {}  # the folders' names are the labels


def require_folder(folder: Path, what: str, hint: str) -> None:
    if not folder.is_dir():
        raise PCDError(f"{what} {folder} does not exist; {hint}")


# Pascal VOC.


def voc_parts(name: str) -> tuple[str, str]:
    """2007_trainval to VOC2007, trainval."""
    year, _, part = name.partition("_")
    return f"VOC{year}", part


def voc_images(folder: Path, name: str) -> list[str]:
    """The images of the list YEAR_LIST, without suffix, in its order."""
    if (folder / "ImageSets").is_dir() and (folder / "JPEGImages").is_dir():
        raise PCDError(f"{folder} is one year of VOC; give the folder above it (VOCdevkit)")
    year, part = voc_parts(name)
    require_folder(folder / year, "Pascal VOC's folder", "unpack the VOC archives there, or set the set's `folder`")
    path = folder / year / "ImageSets" / "Main" / f"{part}.txt"
    try:
        images = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise PCDError(f"list of images {path} cannot be read ({error.strerror}); unpack {year} again") from None
    except ValueError:
        raise PCDError(f"list of images {path} is no text in UTF-8; unpack {year} again") from None
    if not images:
        raise PCDError(f"list of images {path} is empty; unpack {year} again")
    return images


def voc_lists(settings: VocSet) -> str:
    """2007_trainval and 2012_trainval to train, 2007_test to evaluate."""
    return f"{' and '.join(settings.train)} to train, {settings.val} to evaluate"


def voc_departure(settings: VocSet) -> str | None:
    """A line where these are not the lists of the protocols voc_*, which no setting of a protocol tells."""
    named = VocSet(folder=settings.folder)
    if (set(settings.train), settings.val) == (set(named.train), named.val):
        return None
    return f"lists {voc_lists(settings)}; VOC 07+12, and so the protocols voc_*, have {voc_lists(named)}"


def _voc_files(folder: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        year, part = voc_parts(name)
        images = voc_images(folder, name)
        yield folder / year / "ImageSets" / "Main" / f"{part}.txt"
        annotations = folder / year / "Annotations"
        require_folder(annotations, "Pascal VOC's annotations", f"unpack {year} again (the test years have none)")
        yield from (annotations / f"{image}.xml" for image in images)


# Cityscapes.


def cityscapes_pairs(folder: Path, split: str) -> list[tuple[Path, Path]]:
    """Each image of a split and its instanceIds, by city and name.

    Raises:
        PCDError: a folder is missing or has no image, or an image has no annotations, or these no image.
    """
    images, truths = folder / "leftImg8bit" / split, folder / "gtFine" / split
    for place, archive in ((images, "leftImg8bit_trainvaltest.zip"), (truths, "gtFine_trainvaltest.zip")):
        require_folder(place, "Cityscapes' folder", f"unpack {archive} there, or set the set's `folder`")
    pairs = []
    for image in sorted(images.glob(f"*/*{_IMAGE_END}")):
        truth = truths / image.parent.name / (image.name.removesuffix(_IMAGE_END) + _TRUTH_END)
        if not truth.is_file():
            raise PCDError(f"{image} has no annotations: {truth} does not exist; unpack gtFine_trainvaltest.zip again")
        pairs.append((image, truth))
    if not pairs:
        raise PCDError(f"no images in {images} (looked for <city>/*{_IMAGE_END}); unpack leftImg8bit there")
    known = {truth for _, truth in pairs}
    bare = [truth for truth in sorted(truths.glob(f"*/*{_TRUTH_END}")) if truth not in known]
    if bare:
        image = images / bare[0].parent.name / (bare[0].name.removesuffix(_TRUTH_END) + _IMAGE_END)
        raise PCDError(
            f"{bare[0]} has no image ({len(bare):,} such): {image} does not exist; unpack leftImg8bit_trainvaltest.zip "
            "again"
        )
    return pairs
