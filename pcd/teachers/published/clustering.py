"""Teachers trained to agree on prototypes: SwAV, DINO."""

from typing import Final

from pcd.layouts import HeadLayout, ViTLayout
from pcd.teachers.entry import TeacherEntry
from pcd.teachers.published.shared import FACEBOOK, NAMES_FROM_CODE, NO_HASH, NUMPY_SCALARS, RESNET50

__all__ = ["CLUSTERING"]

_SWAV: Final = TeacherEntry(
    name="swav_r50_800",
    title="SwAV, ResNet-50, 800 epochs on ImageNet",
    url=f"{FACEBOOK}/deepcluster/swav_800ep_pretrain.pth.tar",
    published_hash=None,
    megabytes=114,
    licence="CC-BY-NC-4.0",
    noncommercial=True,
    top_key=None,
    trunk_prefix="module.",
    head_prefix="module.projection_head.",
    dropped=("module.prototypes.*",),
    trunk=RESNET50,  # pads by 1 and then by 2 where torchvision pads by 3: the same
    head=HeadLayout(widths=(2048, 2048, 128), bias=True, norm=True, last_norm="none"),
    std=(0.228, 0.224, 0.225),
    accuracy="ImageNet linear top-1 75.3 (the trunk that is read here; there is no slow one)",
    source="facebookresearch/swav@06b1b7c: README.md, LICENSE, hubconf.py, src/resnet50.py, src/multicropdataset.py; "
    "issues #6 (names), #7 (no commercial use)",
    unverified=(NO_HASH,),
)

# The head's mlp ends in a 256-d bottleneck, which is L2-normalised before the prototypes (last_layer). The teacher
# stops at the bottleneck; vectors are normalised in the loss anyway.
_DINO_LEFT_OUT: Final = ("head.last_layer.*",)
_DINO_SAVED_ALONG: Final = ("argparse.Namespace", *NUMPY_SCALARS)

_DINO_RESNET50: Final = TeacherEntry(
    name="dino_r50",
    title="DINO, ResNet-50 on ImageNet, up to its bottleneck",
    url=f"{FACEBOOK}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain_full_checkpoint.pth",
    published_hash=None,
    megabytes=387,
    licence="Apache-2.0",
    noncommercial=False,
    top_key="teacher",
    wrapper="module.",
    trunk_prefix="backbone.",
    head_prefix="head.",
    dropped=_DINO_LEFT_OUT,
    placeholders=_DINO_SAVED_ALONG,
    trunk=RESNET50,
    head=HeadLayout(
        widths=(2048, 4096, 256),
        bias=True,
        norm=True,
        last_norm="none",
        activation="gelu",
        layer_names=("mlp.0", "mlp.1", "mlp.3"),
    ),
    accuracy="ImageNet linear top-1 75.3 (the teacher that is read here)",
    source="facebookresearch/dino@7c446df: README.md, hubconf.py, main_dino.py; issues #108 (licence of the weights), "
    "#189 (this head is not the repository's); facebookresearch/RCDM@71daaf1: get_ssl_models.py (names, layers)",
    unverified=(NO_HASH, "whether names begin with module.", NAMES_FROM_CODE),
)

_DINO_VITS: Final = TeacherEntry(
    name="dino_vits16",
    title="DINO, ViT-S/16 on ImageNet, up to its bottleneck",
    url=f"{FACEBOOK}/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain_full_checkpoint.pth",
    published_hash=None,
    megabytes=352,
    licence="Apache-2.0",
    noncommercial=False,
    top_key="teacher",
    wrapper="module.",
    trunk_prefix="backbone.",
    head_prefix="head.",
    dropped=_DINO_LEFT_OUT,
    placeholders=_DINO_SAVED_ALONG,
    trunk=ViTLayout(width=384, depth=12, heads=6),
    head=HeadLayout(
        widths=(384, 2048, 2048, 256),
        bias=True,
        norm=False,
        last_norm="none",
        activation="gelu",
        layer_names=("mlp.0", "mlp.2", "mlp.4"),
    ),
    accuracy="ImageNet linear top-1 77.0 (the teacher that is read here)",
    source="facebookresearch/dino@7c446df: README.md, hubconf.py, main_dino.py, vision_transformer.py; issues #65, "
    "#108 (licence of the weights), #139",
    unverified=(NO_HASH, NAMES_FROM_CODE),
)

CLUSTERING: Final = (_SWAV, _DINO_RESNET50, _DINO_VITS)
