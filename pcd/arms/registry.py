"""The arms as data, without torch: what each one changes in the settings of a pre-training, and on whose word.

All pre-trained arms share data, views, schedule, optimizer and loop, the student and its start; they differ in what is
named here and in their objective's file. A comparator's student has no self-attention, which is a part of PCD.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["ARMS", "Arm", "Option", "options_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A number that one objective alone has: a key of `pretrain.options`."""

    value: float
    meaning: str
    least: float
    most: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    name: str
    title: str
    kind: Literal["pretrain", "external", "none"]
    """A pre-training run of this benchmark, weights that are brought, or the student as it is initialised."""
    objective: str = "pcd"
    """Of a pre-training: the module of pcd.arms that computes its loss."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Dotted settings of the pre-training to their values in this arm."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """What else the objective has to set."""
    source: str
    departures: tuple[str, ...] = ()
    """Where it is not what its source does, besides what all arms share."""


_SEED: Final = "jacobswan1/SEED@81ff933"
_COMPRESS: Final = "UMBCvision/CompRess@b9ec6ea"
_DISCO: Final = "Yuting-Gao/DisCo-pytorch@35da4b3"
_BINGO: Final = "haohang96/bingo@fd6df8e"
_VECTORS: Final = {"attention": False, "loss.pairing": "same"}

_TEACHERS_HEAD: Final = "the student's projector has the teacher's widths and BatchNorm, as PCD's has"
_SHARED_QUEUE: Final = "its queue is as long as every arm's"

_ALL: Final = (
    Arm(name="pcd", title="Pixel-Wise Contrastive Distillation", kind="pretrain",
        source="arXiv 2211.00218; allo-rene/pcd@6b0ad4d"),
    Arm(name="random", title="random initialisation, torchvision's", kind="none", source="torchvision"),
    Arm(name="supervised", title="trained on ImageNet's labels, torchvision's weights", kind="external",
        source="torchvision 0.29.1, or the user's own file"),
    Arm(name="teacher", title="the teacher's own trunk", kind="external", source="the teacher's registry entry"),
    # ---- ablations
    Arm(name="pcd-no-adaptor", title="PCD whose teacher head has its activations gated by each pixel for itself",
        kind="pretrain", changes={"adaptor_gate": "pixel"},
        source="an ablation of the SpatialAdaptor (arXiv 2211.00218, abstract)"),
    Arm(name="pcd-no-mhsa", title="PCD without self-attention", kind="pretrain", changes={"attention": False},
        source="an ablation of the self-attention (arXiv 2211.00218, abstract); what the released code does"),
    Arm(name="pcd-same-view", title="PCD with one view for both networks", kind="pretrain",
        changes={"loss.pairing": "same"}, source="ours"),
    Arm(name="pcd-aligned", title="PCD with pixels paired by their place in the image", kind="pretrain",
        changes={"loss.pairing": "aligned"}, source="ours"),
    Arm(name="pcd-last-bn", title="PCD with the BatchNorm that ends the teacher's head", kind="pretrain",
        changes={"adaptor_keeps_last_norm": True}, source="ours; the released code drops it"),
    # ---- comparators
    Arm(name="seed", title="SEED: the teacher's similarities to a queue of its outputs, imitated", kind="pretrain",
        objective="seed", changes={**_VECTORS, "loss.temperature": 0.2},
        options={"teacher_temperature": Option(
            value=1e-4, least=1e-6, most=10, meaning="temperature of the teacher's similarities",
            source=f"{_SEED}: tools/opts.py")},
        source=f"arXiv 2101.04731; {_SEED}: seed/builder.py, tools/utils.py, tools/opts.py",
        departures=(_TEACHERS_HEAD, "both views are distilled, each for itself, where the code has one")),
    Arm(name="compress", title="CompRess: similarities to two queues, each network's own, imitated", kind="pretrain",
        objective="compress", changes={**_VECTORS, "loss.temperature": 0.04},
        options={"momentum": Option(
            value=0.999, least=0, most=1, meaning="of the copy of the student that fills its queue",
            source=f"{_COMPRESS}: train_student.py")},
        source=f"arXiv 2010.14713; {_COMPRESS}: nn/compress_loss.py, train_student.py",
        departures=(_SHARED_QUEUE + " (the code's: 128,000)",
                    "both views are distilled, each for itself, where the code has one; view 1 joins the queues")),
    Arm(name="disco", title="DisCo: the teacher's vectors by squared error, beside MoCo v2 on the student",
        kind="pretrain", objective="disco", changes={**_VECTORS, "loss.temperature": 0.2},
        options={
            "momentum": Option(
                value=0.999, least=0, most=1, meaning="of the copy of the student that makes the keys",
                source=f"{_DISCO}: DisCo/main.py"),
            "distillation_weight": Option(
                value=32, least=0, most=1e6, meaning="of the squared distances, mean over images, beside the contrast",
                source=f"{_DISCO}: DisCo/main.py sums them over the images of a GPU, 256 over 8 GPUs (taken from MoCo; "
                "the code does not state their number)")},
        source=f"arXiv 2104.09124; {_DISCO}: DisCo/main.py, DisCo/moco/builder_kq_mse_largeembedding_2048.py, "
        "Reproduction.md",
        departures=(_TEACHERS_HEAD + "; the code's is [c, 2048, 128] without BatchNorm",
                    "BatchNorm spans the GPUs, so the keys' images are not shuffled among them")),
    Arm(name="bingo", title="BINGO: own and related teacher vectors as positives of one contrast", kind="pretrain",
        objective="bingo", changes={**_VECTORS, "loss.pairing": "crossed", "loss.temperature": 0.2},
        options={
            "bag_size": Option(value=5, least=1, most=1000, meaning="related samples of each image",
                               source=f"{_BINGO}: main_moco.py"),
            "own_weight": Option(value=0.5, least=0, most=1, meaning="of the image's own vector beside its bag",
                                 source=f"{_BINGO}: main_moco.py"),
            "own_only": Option(value=0.055, least=0, most=1, meaning="share of the training before bags are used",
                               source=f"{_BINGO}: main_moco.py, 11 of 200 epochs (`epoch > 10`, counted from 0)")},
        source=f"arXiv 2107.01691; {_BINGO}: moco/builder.py, main_moco.py, clustering.py",
        departures=(
            _TEACHERS_HEAD + "; the code's is [c, 2048, 128] without BatchNorm",
            "bags are the nearest teacher vectors of the queue, by the head's outputs: the code's are the nearest "
            "images of the whole pool by the trunk's features, found in a pass before training",
            "a bag, being of the queue, is left out of its negatives: the code's related vectors are made anew, and "
            "an earlier one of their image is in its queue by chance alone",
            "the student does not see the related images themselves: the code's terms for their views and for CutMix "
            "with them are left out, and each bag counts by its mean where the code draws one of it",
            "both directions of the two views, where the code has one")),
    Arm(name="feature-mse", title="squared error between the feature maps", kind="pretrain", objective="feature_mse",
        changes=dict(_VECTORS), source="FitNets (arXiv 1412.6550), equation 3, at the last map",
        departures=("all layers of the student learn from it, for the whole training, as no labels follow",)),
    Arm(name="pixel-no-negatives", title="PCD without negatives: squared error between unit pixels", kind="pretrain",
        objective="pixel_no_negatives", source="BYOL (arXiv 2006.07733), equation 2, of each pixel"),
)  # fmt: skip

ARMS: Final[Mapping[str, Arm]] = {arm.name: arm for arm in _ALL}


def options_of(objective: str) -> Mapping[str, Option]:
    """Of the first arm with this objective. Raises KeyError if there is none."""
    by_objective = {arm.objective: arm.options for arm in reversed(_ALL) if arm.kind == "pretrain"}
    return by_objective[objective]
