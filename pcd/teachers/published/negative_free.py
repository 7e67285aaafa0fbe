"""Teachers trained without negatives: BYOL, SimSiam, Barlow Twins, VICReg."""

from typing import Final

from pcd.layouts import HeadLayout
from pcd.teachers.entry import PublishedHash, TeacherEntry
from pcd.teachers.published.shared import (
    FACEBOOK,
    NAMES_FROM_CODE,
    NO_HASH,
    NUMPY_SCALARS,
    OPENMMLAB_LOGS,
    RESNET50,
)

__all__ = ["NEGATIVE_FREE"]

_BYOL_OPENMMLAB: Final = TeacherEntry(
    name="byol_r50_mm",
    title="BYOL by OpenMMLab, ResNet-50, 200 epochs on ImageNet",
    url="https://download.openmmlab.com/mmselfsup/1.x/byol/byol_resnet50_16xb256-coslr-200e_in1k/"
    "byol_resnet50_16xb256-coslr-200e_in1k_20220825-de817331.pth",
    published_hash=PublishedHash("sha256", "de817331"),
    megabytes=273,
    licence="Apache-2.0",
    noncommercial=False,
    top_key="state_dict",
    trunk_prefix="target_net.module.0.",
    head_prefix="target_net.module.1.",
    placeholders=OPENMMLAB_LOGS,
    trunk=RESNET50,
    head=HeadLayout(
        widths=(2048, 4096, 256),
        bias=True,
        last_bias=False,
        norm=True,
        last_norm="none",
        layer_names=("fc0", "bn0", "fc1"),
    ),
    accuracy="ImageNet linear top-1 71.8 (online network, not the target network that is read here)",
    source="open-mmlab/mmselfsup@db861f30: configs/selfsup/byol/metafile.yml, mmselfsup/models/algorithms/byol.py, "
    "necks/nonlinear_neck.py, utils/ema.py, tools/model_converters/publish_model.py (hash rule)",
    unverified=(
        "the hash is published by its first 8 digits only",
        "that the repository's licence covers the weights",
        "which objects besides tensors the file holds",
        NAMES_FROM_CODE,
    ),
)

_BYOL_AIRL: Final = TeacherEntry(
    name="byol_r50_airl",
    title="BYOL by revisitAIRL, ResNet-50, 200 epochs on ImageNet: the layout that the released code reads",
    url=None,
    obtain='"BYOL SGD" in the README of megvii-research/revisitAIRL (Google Drive, 1-5-O49vsro9YW9WTokSc8CoSrmjKfieB)',
    published_hash=None,
    megabytes=273,
    licence="Apache-2.0",
    noncommercial=False,
    top_key="model",
    trunk_prefix="module.target_encoder.",
    head_prefix="module.target_encoder.fc.",
    placeholders=("argparse.Namespace", *NUMPY_SCALARS),
    trunk=RESNET50,
    head=HeadLayout(widths=(2048, 4096, 256), bias=True, norm=True, last_norm="none"),
    accuracy="ImageNet linear top-1 72.1 (online encoder, not the target encoder that PCD uses)",
    source="megvii-research/revisitAIRL@7afeb02: README.md, LICENSE, models/siamese_network.py, models/utils/mlp.py, "
    "exp/byol.py, utils/__init__.py",
    unverified=(
        NO_HASH,
        "whether the last Linear has a bias: the released code says so, a comment beside it says not",
        "that the paper used this very file",
        "that the repository's licence covers the weights",
        NAMES_FROM_CODE,
    ),
)


def _simsiam(name: str, batch: int, folder: str, linear_top1: float) -> TeacherEntry:
    return TeacherEntry(
        name=name,
        title=f"SimSiam, ResNet-50, 100 epochs on ImageNet, batch {batch}",
        url=f"{FACEBOOK}/simsiam/models/{folder}/pretrain/checkpoint_0099.pth.tar",
        published_hash=None,
        megabytes=153,
        licence="CC-BY-NC-4.0",
        noncommercial=True,
        top_key="state_dict",
        trunk_prefix="module.encoder.",
        head_prefix="module.encoder.fc.",
        trunk=RESNET50,
        # The last bias was never trained. It stays all the same: the running mean behind it was taken with it.
        head=HeadLayout(widths=(2048, 2048, 2048, 2048), bias=False, last_bias=True, norm=True, last_norm="plain"),
        accuracy=f"ImageNet linear top-1 {linear_top1} (the encoder that is read here; there is no slow one)",
        source="facebookresearch/simsiam@a7bc177: README.md, LICENSE, simsiam/builder.py",
        unverified=(NO_HASH, NAMES_FROM_CODE),
    )


_BARLOW: Final = TeacherEntry(
    name="barlow_r50_1000",
    title="Barlow Twins, ResNet-50, 1000 epochs on ImageNet",
    url=f"{FACEBOOK}/barlowtwins/ljng/checkpoint.pth",
    published_hash=None,
    reported_hash=PublishedHash("sha256", "b3d2bfdffc"),
    megabytes=699,
    licence="MIT",
    noncommercial=False,
    top_key="model",
    trunk_prefix="module.backbone.",
    head_prefix="module.projector.",
    last_norm_prefix="module.bn.",
    # The optimizer's settings name this function (barlowtwins#20, #36).
    placeholders=("__main__.exclude_bias_and_norm", "__mp_main__.exclude_bias_and_norm"),
    trunk=RESNET50,
    head=HeadLayout(widths=(2048, 8192, 8192, 8192), bias=False, norm=True, last_norm="external"),
    accuracy="ImageNet linear top-1 73.5 (the trunk that is read here; there is no slow one)",
    source="facebookresearch/barlowtwins@8e8d284: README.md, LICENSE, main.py",
    unverified=(NO_HASH, "the SHA-256 prefix is a third party's", NAMES_FROM_CODE),
)

_VICREG: Final = TeacherEntry(
    name="vicreg_r50",
    title="VICReg, ResNet-50 on ImageNet",
    url=f"{FACEBOOK}/vicreg/resnet50_fullckpt.pth",
    published_hash=None,
    megabytes=699,
    licence="MIT",
    noncommercial=False,
    top_key="model",
    trunk_prefix="module.backbone.",
    head_prefix="module.projector.",
    placeholders=("__main__.exclude_bias_and_norm", "__mp_main__.exclude_bias_and_norm"),  # vicreg#6
    trunk=RESNET50,
    head=HeadLayout(widths=(2048, 8192, 8192, 8192), bias=True, last_bias=False, norm=True, last_norm="none"),
    accuracy="ImageNet linear top-1 73.2 (the trunk that is read here; there is no slow one)",
    source="facebookresearch/vicreg@4e12602: README.md, LICENSE, main_vicreg.py, resnet.py",
    unverified=(NO_HASH, NAMES_FROM_CODE),
)

NEGATIVE_FREE: Final = (
    _BYOL_OPENMMLAB,
    _BYOL_AIRL,
    _simsiam("simsiam_r50_100", 512, "100ep", 68.1),
    _simsiam("simsiam_r50_100_256", 256, "100ep-256bs", 68.3),
    _BARLOW,
    _VICREG,
)
