"""The order in which a detector meets its images."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.data import MetadataCatalog, build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.structures import PolygonMasks
from PIL import Image

from eval.data import Split, read_data_set
from eval.detectron.data import evaluation_loader, register_split, training_loader
from eval.shapes import CLASS_NAMES
from pcd.errors import PCDError
from tests.patience import PATIENCE

BATCH = 4


@pytest.fixture(scope="module")
def cfg(new_config: Callable[..., Any]) -> Any:
    return new_config(batch=BATCH)


@pytest.fixture
def mixed_name(tmp_path: Path) -> str:
    """A split of images of 48 x 32 and of 32 x 48 pixels, which Detectron2's own loader sorts by orientation."""
    images, annotations = [], []
    segmentation = [[4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0]]
    for i in range(1, 14):
        width, height = (48, 32) if i % 3 else (32, 48)
        Image.effect_noise((width, height), 60).convert("RGB").save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        box = {"bbox": [4, 4, 16, 16], "area": 256, "segmentation": segmentation, "iscrowd": 0}
        annotations.append({"id": i, "image_id": i, "category_id": 1, **box})
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "mixed.json").write_text(json.dumps(coco))
    return register_split(Split(tmp_path, tmp_path / "mixed.json"))


@pytest.fixture
def detectron2s_loader(mixed_name: str) -> Callable[[Any, int], Iterator[Any]]:
    """Detectron2's own batches of that split by a configuration and a seed."""

    def load(cfg: Any, seed: int) -> Iterator[Any]:
        cfg = cfg.clone()
        cfg.DATASETS.TRAIN, cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = (mixed_name,), 0, BATCH
        return iter(build_detection_train_loader(cfg, sampler=TrainingSampler(13, seed=seed)))

    return load


def image_ids(cfg: Any, name: str, batches: int, seed: int = 0, first: int = 0, workers: int = 0) -> list[int]:
    loader = training_loader(cfg, name, workers, seed, first)
    return [record["image_id"] for batch in itertools.islice(loader, batches) for record in batch]


def ids_with_objects(annotations: Path) -> set[int]:
    coco = json.loads(annotations.read_text())
    return {a["image_id"] for a in coco["annotations"] if not a["iscrowd"]}


def test_a_batch_has_as_many_images_as_set(cfg: Any, train_name: str) -> None:
    assert len(image_ids(cfg, train_name, batches=3)) == 3 * BATCH


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_a_later_first_step_meets_the_rest_of_the_order(cfg: Any, train_name: str, steps: int) -> None:
    whole = image_ids(cfg, train_name, batches=12)
    assert image_ids(cfg, train_name, batches=12 - steps, first=steps) == whole[steps * BATCH :]


@pytest.mark.parametrize("steps", [1, 3, 9])
def test_a_later_first_step_meets_the_rest_of_the_order_in_a_set_of_both_orientations(
    cfg: Any, mixed_name: str, steps: int
) -> None:
    whole = image_ids(cfg, mixed_name, batches=12)
    assert image_ids(cfg, mixed_name, batches=12 - steps, first=steps) == whole[steps * BATCH :]


@pytest.mark.parametrize(
    "zoo", ["COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", "Cityscapes/mask_rcnn_R_50_FPN.yaml"]
)
def test_batches_are_those_of_detectron2s_own_loader(
    cfg: Any, mixed_name: str, detectron2s_loader: Callable[[Any, int], Iterator[Any]], zoo: str
) -> None:
    ours = itertools.islice(training_loader(cfg, mixed_name, 0, 3, 0), 12)
    theirs = itertools.islice(detectron2s_loader(model_zoo.get_config(zoo), 3), 12)
    ids = [[[record["image_id"] for record in batch] for batch in batches] for batches in (ours, theirs)]
    assert ids[0] == ids[1]


def test_a_batch_has_images_of_one_orientation(cfg: Any, mixed_name: str) -> None:
    batches = list(itertools.islice(training_loader(cfg, mixed_name, 0, 0, 0), 12))
    orientations = [{record["width"] > record["height"] for record in batch} for batch in batches]
    assert {len(found) for found in orientations} == {1}
    assert {True, False} == set.union(*orientations)


def test_polygons_are_read_as_polygons_where_the_configuration_says_so(cfg: Any, mixed_name: str) -> None:
    cfg = cfg.clone()
    cfg.INPUT.MASK_FORMAT = "polygon"
    (record, *_) = next(iter(training_loader(cfg, mixed_name, 0, 0, 0)))
    assert isinstance(record["instances"].gt_masks, PolygonMasks)


def test_another_seed_has_another_order(cfg: Any, train_name: str) -> None:
    assert image_ids(cfg, train_name, 4, seed=0) != image_ids(cfg, train_name, 4, seed=1)


def test_an_epoch_meets_every_image_with_objects_once(cfg: Any, train_name: str, shapes_set: Path) -> None:
    expected = ids_with_objects(shapes_set / "train.json")
    met = image_ids(cfg, train_name, batches=len(expected) // BATCH + 1)[: len(expected)]
    assert sorted(met) == sorted(expected)


def test_images_without_objects_or_with_crowds_alone_are_not_trained_on(
    cfg: Any, draw_set: Callable[..., Path], tmp_path: Path
) -> None:
    data = read_data_set(draw_set(tmp_path / "set", train=60, pool=1, val=1))
    expected = ids_with_objects(data.train.annotations)
    assert len(expected) < 60
    assert set(image_ids(cfg, register_split(data.train), batches=20)) == expected


def test_the_detector_gets_the_pixels_of_the_file_as_rgb(cfg: Any, train_name: str, shapes_set: Path) -> None:
    record = next(iter(training_loader(cfg, train_name, 0, 0, 0)))[0]
    with Image.open(record["file_name"]) as file:
        pixels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)  # (3, H, W)
    got = record["image"]
    assert torch.equal(got, pixels) or torch.equal(got, pixels.flip(2))


def test_the_number_of_workers_does_not_change_the_batches(cfg: Any, train_name: str) -> None:
    drawn = []
    for workers in (0, 1):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  Detectron2 draws its flips from it
        loader = training_loader(cfg, train_name, workers, 0, 0)
        drawn.append([record["image"] for batch in itertools.islice(loader, 3) for record in batch])
    assert [torch.equal(a, b) for a, b in zip(*drawn, strict=True)] == [True] * 12


def test_evaluation_meets_every_image_in_order(cfg: Any, val_name: str) -> None:
    ids = [record["image_id"] for batch in evaluation_loader(cfg, val_name, 0) for record in batch]
    assert ids == list(range(1, 9))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(cfg: Any, mixed_name: str, tmp_path: Path, workers: int) -> None:
    damaged = tmp_path / "5.png"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    with pytest.raises(PCDError, match=rf"\A[^\n]*{damaged} cannot be read[^\n]*\Z"):
        image_ids(cfg, mixed_name, batches=4, workers=workers)


def test_a_registered_split_knows_its_classes(train_name: str) -> None:
    assert MetadataCatalog.get(train_name).thing_classes == list(CLASS_NAMES)


def test_one_split_can_be_registered_twice(shapes_set: Path) -> None:
    split = read_data_set(shapes_set).val
    assert register_split(split) != register_split(split)


_RANK = """
import sys
from pathlib import Path
import torch.distributed as dist
dist.init_process_group("gloo")
from eval.data import read_data_set
from eval.detectron.config import build_config
from eval.detectron.data import evaluation_loader, register_split
from eval.finetune_settings import FinetuneSettings
cfg = build_config(FinetuneSettings(), "resnet18", 6, "cpu", sync_norm=False)
name = register_split(read_data_set(Path(sys.argv[1])).val)
if dist.get_rank() == 0:
    ids = [record["image_id"] for batch in evaluation_loader(cfg, name, 0) for record in batch]
    Path(sys.argv[2]).write_text(str(ids))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_the_first_of_several_ranks_evaluates_the_whole_split(shapes_set: Path, tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(_RANK)
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*ranks, str(tmp_path / "rank.py"), str(shapes_set), str(tmp_path / "ids")]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=PATIENCE, capture_output=True)
    assert (tmp_path / "ids").read_text() == str(list(range(1, 9)))
