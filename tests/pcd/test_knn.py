import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pcd.errors import PCDError
from pcd.knn import KnnMonitor, knn_top1
from pcd.students import build_student
from tests.conftest import ROOT
from tests.patience import PATIENCE
from tests.pcd.slow_parameters import WORKER_THAT_RAISES

CPU = torch.device("cpu")


# ---- the classifier


def _plain_top1(
    train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, k: int = 20, temperature: float = 0.07
) -> float:
    """The definition, image by image."""
    right = 0
    for query, label in zip(test, truth, strict=True):
        similarity = [float(F.cosine_similarity(query, other, dim=0)) for other in train]
        nearest = sorted(range(len(train)), key=lambda i: -similarity[i])[:k]
        votes: dict[int, float] = {}
        for i in nearest:
            votes[int(labels[i])] = votes.get(int(labels[i]), 0.0) + float(np.exp(similarity[i] / temperature))
        right += max(votes, key=lambda name: votes[name]) == int(label)
    return 100 * right / len(test)


@pytest.mark.parametrize("k", [1, 5, 20, 100])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_it_is_the_weighted_vote_of_the_definition(k: int, temperature: float) -> None:
    train, test = torch.randn(60, 8), torch.randn(30, 8)
    labels, truth = torch.randint(5, (60,)), torch.randint(5, (30,))
    expected = _plain_top1(train, labels, test, truth, k, temperature)
    assert knn_top1(train, labels, test, truth, k, temperature) == pytest.approx(expected)


def test_classes_that_lie_apart_are_told_apart() -> None:
    centres = 10 * torch.eye(4)
    labels = torch.arange(4).repeat(8)
    train, test = (centres[labels] + 0.1 * torch.randn(32, 4) for _ in range(2))
    assert knn_top1(train, labels, test, labels) == 100


def test_features_that_say_nothing_are_right_by_chance() -> None:
    labels = torch.arange(4).repeat(500)
    assert knn_top1(torch.randn(2000, 16), labels, torch.randn(2000, 16), labels) == pytest.approx(25, abs=4)


def test_one_near_neighbour_outvotes_two_far_ones() -> None:
    train = F.normalize(torch.tensor([[1.0, 0.1], [1.0, 1.0], [1.0, 1.1]]))
    labels, test, truth = torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    assert knn_top1(train, labels, test, truth, k=3) == 100
    assert knn_top1(train, labels, test, truth, k=3, temperature=100) == 0


def test_the_length_of_features_does_not_matter() -> None:
    train, test = torch.randn(40, 8), torch.randn(3000, 8)  # more tests than one chunk holds
    labels, truth = torch.randint(5, (40,)), torch.randint(5, (3000,))
    stretched = knn_top1(train * torch.rand(40, 1).add(0.1), labels, 7 * test, truth)
    assert stretched == knn_top1(train, labels, test, truth)


def test_tests_of_a_class_without_training_images_count_as_wrong() -> None:
    assert knn_top1(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), torch.tensor([0, 7]), k=1) == 50


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_an_empty_part_raises_value_error(sizes: tuple[int, int]) -> None:
    train, test = (torch.randn(n, 4) for n in sizes)
    with pytest.raises(ValueError, match="each needs at least one"):
        knn_top1(train, torch.zeros(sizes[0]).long(), test, torch.zeros(sizes[1]).long())


# ---- the monitor

COLOURS = {"blue": (30, 40, 220), "green": (30, 200, 60), "red": (220, 40, 30)}


def _draw(folder: Path, per_class: int, seed: int = 0) -> None:
    """Noisy images of one colour for each class."""
    noise = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = np.clip(np.array(colour) + noise.normal(0, 30, (40, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images in each of three classes."""
    folder = tmp_path_factory.mktemp("labelled")
    _draw(folder, 10)
    return folder


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train and val, with eight and three images of each class."""
    folder = tmp_path_factory.mktemp("split")
    _draw(folder / "train", 8)
    _draw(folder / "val", 3, seed=1)
    return folder


class _Colours(nn.Module):
    """A backbone that keeps the colours."""

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 16)


def _unsorting() -> nn.Module:
    """A backbone whose features say nothing of the image."""

    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.ones(len(images), 4, 1, 1)

    return Constant()


@pytest.mark.parametrize("folder", ["labelled", "split"])
def test_features_that_tell_the_classes_apart_are_right(folder: str, request: pytest.FixtureRequest) -> None:
    assert KnnMonitor(request.getfixturevalue(folder), 32).top1(_Colours(), CPU) == 100


def test_features_that_say_nothing_name_one_class(split: Path) -> None:
    assert KnnMonitor(split, 32).top1(_unsorting(), CPU) == pytest.approx(100 / 3)


def test_train_and_val_are_what_their_folders_hold(split: Path) -> None:
    monitor = KnnMonitor(split, 32)
    assert monitor.classes == ("blue", "green", "red")
    assert {path for path, _ in monitor.train} == set((split / "train").rglob("*.png"))
    assert {path for path, _ in monitor.test} == set((split / "val").rglob("*.png"))
    assert all(path.parent.name == monitor.classes[label] for path, label in monitor.train + monitor.test)


def test_without_them_a_fifth_of_each_class_is_kept_for_the_test(labelled: Path) -> None:
    monitor = KnnMonitor(labelled, 32)
    train, test = ({path for path, _ in part} for part in (monitor.train, monitor.test))
    assert train | test == set(labelled.rglob("*.png"))
    assert not train & test
    assert sorted(path.parent.name for path in test) == ["blue"] * 2 + ["green"] * 2 + ["red"] * 2


def test_the_split_is_the_seeds(labelled: Path) -> None:
    first, again, other = (KnnMonitor(labelled, 32, seed=seed).test for seed in (0, 0, 1))
    assert first == again != other


def test_fewer_images_are_spread_over_the_classes(split: Path) -> None:
    monitor = KnnMonitor(split, 32, max_train=6, max_test=4)
    assert [label for _, label in monitor.train] == [0, 1, 2] * 2
    assert [label for _, label in monitor.test] == [0, 1, 2, 0]


@pytest.mark.parametrize("workers", [0, 1])
def test_it_leaves_backbone_and_torchs_generator_as_they_were(split: Path, workers: int) -> None:
    backbone = build_student("resnet18").train()
    backbone.get_submodule("bn1").eval()
    monitor = KnnMonitor(split, 32, workers=workers)
    modes = [module.training for module in backbone.modules()]
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    state = torch.get_rng_state()
    KnnMonitor(split, 32).top1(backbone, CPU)
    monitor.top1(backbone, CPU)
    assert [module.training for module in backbone.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_it_draws_nothing_from_pythons_own_generator(split: Path) -> None:
    # In a process of its own: threads that Prefect leaves behind in this one draw from that generator at any time.
    code = (
        "import random, sys, torch; from pathlib import Path;"
        "from pcd.knn import KnnMonitor; from pcd.students import build_student;"
        "monitor, state = KnnMonitor(Path(sys.argv[1]), 32, workers=1), random.getstate();"
        "monitor.top1(build_student('resnet18'), torch.device('cpu'));"
        "sys.exit(random.getstate() != state)"
    )
    subprocess.run([sys.executable, "-c", code, str(split)], cwd=ROOT, check=True, timeout=PATIENCE)


def _train_with(look: Callable[[nn.Module], object]) -> dict[str, Tensor]:
    """Four random steps of a small network with BatchNorm and dropout, and a look at it between them."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 4, 1)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(4):
        look(network)
        optimizer.zero_grad()
        network(torch.randn(8, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    return network.state_dict()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_that_is_watched_ends_bit_for_bit_as_one_that_is_not(split: Path, workers: int) -> None:
    monitor = KnnMonitor(split, 32, workers=workers)
    alone, watched = _train_with(lambda network: None), _train_with(lambda network: monitor.top1(network, CPU))
    assert all(torch.equal(alone[name], watched[name]) for name in alone)


def test_workers_do_not_change_the_figure(split: Path) -> None:
    backbone = build_student("resnet18")
    alone, helped = (KnnMonitor(split, 32, workers=workers, batch=5).top1(backbone, CPU) for workers in (0, 2))
    assert alone == helped


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ([], "has 0 classes"),
        (["one"], "has 1 classes"),
        (["train/a", "train/b", "val/a", "val/c"], "do not have the same classes (only in one: b)"),
        (["a", "b"], "no images in"),
    ],
)
def test_a_folder_that_is_not_laid_out_so_is_the_users_error(tmp_path: Path, made: list[str], told: str) -> None:
    for name in made:
        (tmp_path / name).mkdir(parents=True)
        if told != "no images in":
            Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    with pytest.raises(PCDError) as caught:
        KnnMonitor(tmp_path, 32)
    assert told in str(caught.value)


def test_a_folder_that_is_missing_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(PCDError, match="does not exist"):
        KnnMonitor(tmp_path / "gone", 32)


def test_one_image_a_class_is_the_users_error(tmp_path: Path) -> None:
    _draw(tmp_path / "few", 1)
    with pytest.raises(PCDError, match="one image a class"):
        KnnMonitor(tmp_path / "few", 32)


def test_a_hidden_folder_is_no_class(tmp_path: Path) -> None:
    _draw(tmp_path / "some", 2)
    (tmp_path / "some" / ".cache").mkdir()
    assert KnnMonitor(tmp_path / "some", 32).classes == tuple(COLOURS)


@pytest.mark.parametrize("workers", [0, WORKER_THAT_RAISES])
def test_a_damaged_image_is_the_users_error_in_one_line(tmp_path: Path, workers: int) -> None:
    _draw(tmp_path / "some", 2)
    (tmp_path / "some" / "red" / "0.png").write_bytes(b"damaged")
    with pytest.raises(PCDError) as caught:
        KnnMonitor(tmp_path / "some", 32, workers=workers).top1(_Colours(), CPU)
    assert str(caught.value).startswith("cannot read image")
    assert "\n" not in str(caught.value)
