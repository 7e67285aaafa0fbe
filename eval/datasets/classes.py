"""A set of images with one label each: train/<class>/ and val/<class>/, as ImageNet is usually unpacked."""

from pathlib import Path
from typing import Final

from eval.datasets.layouts import require_folder
from pcd.errors import PCDError
from pcd.image_folder import Listing, scan_images

__all__ = ["list_classes"]

_FEWEST: Final = 2


def list_classes(folder: Path) -> tuple[tuple[str, ...], Listing, Listing]:
    """The classes by name, and the images of train and of val, each below the folder of its class.

    Raises:
        PCDError: a folder is missing or has no image, an image lies in no class, there are fewer than two classes, or
            the two parts have different ones.
    """
    parts = {}
    for split in ("train", "val"):
        place = folder / split
        require_folder(place, "the folder", "a set of classes has train/<class>/ and val/<class>/")
        listing = scan_images(place)
        loose = next((name for name in listing.names if "/" not in name), None)
        if loose is not None:
            hint = "sort the images into a folder for each class (ImageNet's val comes unsorted)"
            raise PCDError(f"{place / loose} lies in no class; {hint}")
        parts[split] = listing
    classes = {split: {name.partition("/")[0] for name in listing.names} for split, listing in parts.items()}
    odd = sorted(classes["train"] ^ classes["val"])
    if odd:
        where = "train" if odd[0] in classes["train"] else "val"
        raise PCDError(f'{folder}: the class "{odd[0]}" has images in {where} alone ({len(odd)} such); both need all')
    if len(classes["train"]) < _FEWEST:
        raise PCDError(f"{folder} has {len(classes['train'])} class; a classifier needs at least two")
    return tuple(sorted(classes["train"])), parts["train"], parts["val"]
