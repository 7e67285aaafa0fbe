"""Teachers trained against negatives: MoCo v2 and v3, DenseCL."""

from typing import Final

from pcd.layouts import HeadLayout, ViTLayout
from pcd.teachers.entry import PublishedHash, TeacherEntry
from pcd.teachers.published.shared import FACEBOOK, NAMES_FROM_CODE, NO_HASH, OPENMMLAB_LOGS, RESNET50

__all__ = ["CONTRASTIVE"]


def _mocov3_resnet50(epochs: int, linear_top1: float) -> TeacherEntry:
    return TeacherEntry(
        name=f"mocov3_r50_{epochs}",
        title=f"MoCo v3, ResNet-50, {epochs} epochs on ImageNet",
        url=f"{FACEBOOK}/moco-v3/r-50-{epochs}ep/r-50-{epochs}ep.pth.tar",
        published_hash=None,
        megabytes=273,
        licence="CC-BY-NC-4.0",
        noncommercial=True,
        top_key="state_dict",
        trunk_prefix="module.momentum_encoder.",
        head_prefix="module.momentum_encoder.fc.",
        trunk=RESNET50,
        head=HeadLayout(widths=(2048, 4096, 256), bias=False, norm=True, last_norm="plain"),
        accuracy=f"ImageNet linear top-1 {linear_top1} (base encoder, not the momentum encoder that PCD uses)",
        source="facebookresearch/moco-v3@c349e6e: CONFIG.md, README.md, moco/builder.py, LICENSE",
        unverified=(NO_HASH, NAMES_FROM_CODE),
    )


def _mocov3_vit(size: str, width: int, linear_top1: float, megabytes: float, reported_md5: str) -> TeacherEntry:
    return TeacherEntry(
        name=f"mocov3_vit{size}",
        title=f"MoCo v3, ViT-{size.upper()}/16, 300 epochs on ImageNet",
        url=f"{FACEBOOK}/moco-v3/vit-{size}-300ep/vit-{size}-300ep.pth.tar",
        published_hash=None,
        reported_hash=PublishedHash("md5", reported_md5),
        megabytes=megabytes,
        licence="CC-BY-NC-4.0",
        noncommercial=True,
        top_key="state_dict",
        trunk_prefix="module.momentum_encoder.",
        head_prefix="module.momentum_encoder.head.",
        # Both have 12 attention heads. The position embedding is a fixed sine and cosine, and stands in the file.
        trunk=ViTLayout(width=width, depth=12, heads=12),
        head=HeadLayout(widths=(width, 4096, 4096, 256), bias=False, norm=True, last_norm="plain"),
        student_hidden=(4096,),
        accuracy=f"ImageNet linear top-1 {linear_top1} (base encoder, not the momentum encoder that PCD uses)",
        source="facebookresearch/moco-v3@c349e6e: CONFIG.md, README.md (note 2), vits.py, moco/builder.py, LICENSE",
        unverified=(NO_HASH, "the MD5 is a third party's", NAMES_FROM_CODE),
    )


def _mocov2(epochs: int, linear_top1: float, md5_prefix: str, reported_md5: str) -> TeacherEntry:
    return TeacherEntry(
        name=f"mocov2_r50_{epochs}",
        title=f"MoCo v2, ResNet-50, {epochs} epochs on ImageNet",
        url=f"{FACEBOOK}/moco/moco_checkpoints/moco_v2_{epochs}ep/moco_v2_{epochs}ep_pretrain.pth.tar",
        published_hash=PublishedHash("md5", md5_prefix),
        reported_hash=PublishedHash("md5", reported_md5),
        megabytes=258,
        licence="MIT or CC-BY-NC-4.0",
        noncommercial=True,
        top_key="state_dict",
        trunk_prefix="module.encoder_k.",
        head_prefix="module.encoder_k.fc.",
        trunk=RESNET50,
        head=HeadLayout(widths=(2048, 2048, 128), bias=True, norm=False, last_norm="none"),
        accuracy=f"ImageNet linear top-1 {linear_top1} (encoder_q, not the encoder_k that is read here)",
        source="facebookresearch/moco@7397dfe: README.md, LICENSE, moco/builder.py, main_lincls.py",
        unverified=(
            "the hash is published by its first 8 digits only, the rest is a third party's",
            "LICENSE says MIT, README CC-BY-NC-4.0: taken as not for commercial use until the authors say",
            NAMES_FROM_CODE,
        ),
    )


_DENSECL: Final = TeacherEntry(
    name="densecl_r50",
    title="DenseCL, ResNet-50, 200 epochs on ImageNet, trunk only",
    url="https://huggingface.co/xinlongwang/DenseCL/resolve/main/densecl_r50_imagenet_200ep.pth?download=true",
    published_hash=None,
    reported_hash=PublishedHash("sha256", "08286baa2701cdca040e31589f4ca9875cbbe86aa00cf6896aa7a2c8994fee6f"),
    megabytes=94.3,
    licence="GPL-3.0",
    noncommercial=False,
    top_key="state_dict",
    trunk_prefix="",
    head_prefix=None,
    trunk=RESNET50,
    head=HeadLayout(widths=(2048,), bias=False, norm=False, last_norm="none"),
    accuracy="none in its repository",
    source="WXinlong/DenseCL@b64bbb6: README.md, LICENSE, tools/extract_backbone_weights.py; issues #22, #34",
    unverified=(
        NO_HASH,
        "size and SHA-256 are those of a third party's copy",
        "that the repository's licence covers the weights",
        NAMES_FROM_CODE,
    ),
)

_DENSECL_OPENMMLAB: Final = TeacherEntry(
    name="densecl_r50_mm",
    title="DenseCL by OpenMMLab, ResNet-50, 200 epochs on ImageNet, with its dense head",
    url="https://download.openmmlab.com/mmselfsup/1.x/densecl/densecl_resnet50_8xb32-coslr-200e_in1k/"
    "densecl_resnet50_8xb32-coslr-200e_in1k_20220825-3078723b.pth",
    published_hash=PublishedHash("sha256", "3078723b"),
    licence="Apache-2.0",
    noncommercial=False,
    top_key="state_dict",
    trunk_prefix="encoder_k.module.0.",
    head_prefix="encoder_k.module.1.",
    dropped=("encoder_k.module.1.mlp.*",),  # the global head; the dense one is mlp2
    placeholders=OPENMMLAB_LOGS,
    trunk=RESNET50,
    head=HeadLayout(
        widths=(2048, 2048, 128), bias=True, norm=False, last_norm="none", dense=True, layer_names=("mlp2.0", "mlp2.2")
    ),
    accuracy="ImageNet linear top-1 63.5 (encoder_q, not the encoder_k that is read here)",
    source="open-mmlab/mmselfsup@db861f30: configs/selfsup/densecl/metafile.yml, mmselfsup/models/algorithms/"
    "densecl.py, necks/densecl_neck.py, tools/model_converters/publish_model.py (hash rule)",
    unverified=(
        "the hash is published by its first 8 digits only",
        "that the repository's licence covers the weights",
        "which objects besides tensors the file holds",
        NAMES_FROM_CODE,
    ),
)

CONTRASTIVE: Final = (
    _mocov3_resnet50(100, 68.9),
    _mocov3_resnet50(300, 72.8),
    _mocov3_resnet50(1000, 74.6),
    _mocov3_vit("s", 384, 73.2, 337, "f32f0062e8884e64bcd2044c67bd3e43"),
    _mocov3_vit("b", 768, 76.7, 863, "7fe6d104c5ba222fecc6dc838f2dbcf9"),
    _mocov2(200, 67.7, "59fd9945", "59fd9945645e27d585be89338ce9232e"),
    _mocov2(800, 71.1, "a04e12f8", "a04e12f8b0e44fdcac1fb4e06f33727b"),
    _DENSECL,
    _DENSECL_OPENMMLAB,
)
