"""A set of three classes in pictures of a few pixels, its data stage's folder, and frozen features by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eval.prepare_data import prepare_data
from eval.probes.frozen import FrozenFeatures
from pcd.stage import Spec, read_spec

COLOURS = {"blue": (20, 30, 220), "green": (30, 210, 40), "red": (220, 30, 20)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's layout: train/<class>/ with three noisy pictures in each colour, val/<class>/ with two."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for name, colour in COLOURS.items():
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.normal(colour, 40, (48 + 4 * number, 60, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def data(pictures: Path, tmp_path_factory: pytest.TempPathFactory, new_spec: Callable[..., Path]) -> Path:
    """What the data stage leaves of `pictures`."""
    out = tmp_path_factory.mktemp("data")
    prepare_data(read_spec(new_spec(out, {"data": {"kind": "classes", "folder": str(pictures)}})))
    return out


@pytest.fixture
def make_spec(tmp_path: Path, new_spec: Callable[..., Path]) -> Callable[..., Spec]:
    """A stage's spec, read as its process reads it."""

    def make(settings: dict[str, Any], inputs: dict[str, Path] | None = None, **runtime: Any) -> Spec:
        return read_spec(new_spec(tmp_path / "out", settings, inputs, **runtime))

    return make


@pytest.fixture
def frozen() -> FrozenFeatures:
    """Seven classes of features in 8 dimensions that mostly lie apart: 70 to train on, 35 to test."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(7, 8, generator=generator)
    parts = []
    for count in (10, 5):
        labels = torch.arange(7).repeat_interleave(count)
        parts += [centres[labels] + 0.6 * torch.randn(len(labels), 8, generator=generator), labels]
    return FrozenFeatures(*parts, classes=tuple("abcdefg"))


def lines(spec: Spec) -> list[dict[str, float]]:
    """Of metrics.jsonl, without the time."""
    found = [json.loads(line) for line in spec.metrics.path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "time"} for line in found]
