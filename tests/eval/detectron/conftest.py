"""What the tests of the Detectron2 adapter share: a small Mask R-CNN for the shapes set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.data import read_data_set
from eval.detectron.config import build_config
from eval.detectron.data import register_split
from eval.detectron.train import build_detector
from eval.finetune_settings import FinetuneSettings
from eval.shapes import CLASS_NAMES


@pytest.fixture(scope="session")
def settings(smoke_protocol: dict[str, Any]) -> FinetuneSettings:
    return FinetuneSettings.model_validate(smoke_protocol)


@pytest.fixture(scope="session")
def new_config(settings: FinetuneSettings) -> Callable[..., Any]:
    def build(student: str = "resnet18", sync_norm: bool = False, **changes: Any) -> Any:
        cfg = build_config(settings.model_copy(update=changes), student, len(CLASS_NAMES), "cpu", sync_norm)
        cfg.INPUT.MASK_FORMAT = "bitmask"  # masks of the shapes set are run lengths
        return cfg

    return build


@pytest.fixture(scope="session")
def new_detector(settings: FinetuneSettings) -> Callable[..., Any]:
    """A detector freshly initialised from a seed of its own."""

    def build(cfg: Any, seed: int = 11) -> Any:
        torch.manual_seed(seed)
        return build_detector(cfg, settings)

    return build


@pytest.fixture(scope="session")
def train_name(shapes_set: Path) -> str:
    """The catalogue's name of the shapes set's train split."""
    return register_split(read_data_set(shapes_set).train)


@pytest.fixture(scope="session")
def val_name(shapes_set: Path) -> str:
    return register_split(read_data_set(shapes_set).val)
