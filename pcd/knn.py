"""What frozen features are worth: the weighted nearest-neighbour classifier, as a figure to watch while training."""

from itertools import zip_longest
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pcd.decode import read_rgb
from pcd.errors import PCDError
from pcd.evaluation_mode import evaluation_mode
from pcd.image_folder import list_images
from pcd.images import iterate
from pcd.views import central_view

__all__ = ["KnnMonitor", "knn_top1"]

_CHUNK = 1024  # test images whose similarities are held at once,
_SIMILARITIES = 2**27  # and how many these may be: with all of ImageNet to vote, 104 images'


@torch.no_grad()
def knn_top1(
    features_train: Tensor,
    labels_train: Tensor,
    features_test: Tensor,
    labels_test: Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Top-1 accuracy, per cent, of the weighted k-nearest-neighbour classifier.

    Each of the k training images of greatest cosine similarity s votes for its class with weight exp(s / temperature)
    (Wu et al. 2018, arXiv 1805.01978; k = 20 and the temperature as in facebookresearch/dino eval_knn.py).
    With fewer training images than k, all of them vote.

    Args:
        features_train, features_test: (N, C) and (M, C), need not be normalised.
        labels_train, labels_test: (N,) and (M,), integers from 0.

    Raises:
        ValueError: no training or no test images.
    """
    if not len(features_train) or not len(features_test):
        raise ValueError(
            f"{len(features_train)} training and {len(features_test)} test images; each needs at least one"
        )
    bank = F.normalize(features_train.float(), dim=1)
    classes = int(torch.maximum(labels_train.max(), labels_test.max())) + 1
    right, chunk = 0, max(1, min(_CHUNK, _SIMILARITIES // len(bank)))
    for queries, labels in zip(features_test.split(chunk), labels_test.split(chunk), strict=True):
        similarity = F.normalize(queries.float(), dim=1) @ bank.T  # (M, N)
        nearest, places = similarity.topk(min(k, len(bank)), dim=1)  # (M, k)
        # Cosines are at most 1: subtracting it leaves the order of the votes, and no exponent above 0.
        weights = ((nearest - 1) / temperature).exp()
        votes = torch.zeros(len(queries), classes, device=bank.device)
        votes.scatter_add_(1, labels_train[places], weights)  # (M, classes)
        right += int((votes.argmax(dim=1) == labels).sum())
    return 100 * right / len(features_test)


class KnnMonitor:
    """kNN top-1 of a backbone's pooled features on a labelled folder; draws nothing from the global random state.

    The folder holds a subfolder of images for each class; or `train` and `val`, which hold these. Without them a seeded
    fifth of each class is kept for the test.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        *,
        max_train: int = 10_000,
        max_test: int = 2_000,
        batch: int = 64,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        """Lists the images; none is read.

        Args:
            size: side of the central crop, pixels; the shorter side is resized to 256/224 of it.
            max_train, max_test: at most so many images, spread evenly over the classes.

        Raises:
            PCDError: the folder is missing, has fewer than two classes, or its parts have different classes.
        """
        generator = torch.Generator().manual_seed(seed)
        if (folder / "train").is_dir() and (folder / "val").is_dir():
            train, test = _classes_in(folder / "train"), _classes_in(folder / "val")
            if train.keys() != test.keys():
                odd = sorted(train.keys() ^ test.keys())
                raise PCDError(f"train and val of {folder} do not have the same classes (only in one: {odd[0]})")
            train = {name: _shuffled(paths, generator) for name, paths in train.items()}
            test = {name: _shuffled(paths, generator) for name, paths in test.items()}
        else:
            both = {name: _shuffled(paths, generator) for name, paths in _classes_in(folder).items()}
            kept = {name: max(1, round(len(paths) / 5)) for name, paths in both.items()}
            train = {name: paths[kept[name] :] for name, paths in both.items()}
            test = {name: paths[: kept[name]] for name, paths in both.items()}
        self.classes = tuple(sorted(train))
        self.train = _spread(train, self.classes, max_train)
        self.test = _spread(test, self.classes, max_test)
        if not self.train:
            raise PCDError(f"{folder} has one image a class, and kNN needs two to compare; add images")
        self._size, self._batch, self._workers = size, batch, workers

    def top1(self, backbone: nn.Module, device: torch.device, k: int = 20, temperature: float = 0.07) -> float:
        """Per cent. The backbone, (B, 3, H, W) -> (B, C, h, w), is left as it was: its mode, its buffers."""
        with torch.no_grad(), evaluation_mode(backbone):
            train, test = (self._features(part, backbone, device) for part in (self.train, self.test))
        return knn_top1(*train, *test, k, temperature)

    def _features(
        self, part: list[tuple[Path, int]], backbone: nn.Module, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        loader = DataLoader(
            _Labelled(part, self._size),
            batch_size=self._batch,
            num_workers=self._workers,
            generator=torch.Generator(),  # else the loader would draw its workers' seed from the global state
        )
        features, labels = [], []
        for images, targets in iterate(loader):
            features.append(backbone(images.to(device)).float().mean(dim=(2, 3)))  # (B, C)
            labels.append(targets.to(device))
        return torch.cat(features), torch.cat(labels)


class _Labelled(Dataset[tuple[Tensor, int]]):
    def __init__(self, part: list[tuple[Path, int]], size: int) -> None:
        self.part, self.size = part, size

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.part[index]
        return central_view(read_rgb(path), self.size), label


def _classes_in(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise PCDError(f"the labelled folder {folder} does not exist; kNN needs one with a subfolder for each class")
    classes = {place.name: list_images(place) for place in sorted(folder.iterdir()) if _is_class(place)}
    if len(classes) < 2:
        raise PCDError(f"{folder} has {len(classes)} classes; kNN needs at least two subfolders of images")
    return classes


def _is_class(place: Path) -> bool:
    return place.is_dir() and not place.name.startswith(".")


def _shuffled(paths: list[Path], generator: torch.Generator) -> list[Path]:
    return [paths[i] for i in torch.randperm(len(paths), generator=generator).tolist()]


def _spread(parts: dict[str, list[Path]], classes: tuple[str, ...], limit: int) -> list[tuple[Path, int]]:
    """One image of each class in turn, up to `limit`, with the class's number."""
    rounds = zip_longest(*(parts[name] for name in classes))
    return [(path, label) for of_round in rounds for label, path in enumerate(of_round) if path is not None][:limit]
