"""Teacher trunks as functions from images to maps, from timm."""

from functools import partial

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pcd.errors import PCDError
from pcd.layouts import ResNetLayout, TrunkLayout, ViTLayout

__all__ = ["build_trunk"]


def build_trunk(layout: TrunkLayout) -> nn.Module:
    """Maps (B, 3, H, W) to (B, C, H/32, W/32) for a ResNet, (B, C, H/patch, W/patch) for a ViT.

    A ResNet has the graph and names of torchvision's, a ViT those of timm's, which MoCo v3 and DINO share.
    """
    return _resnet(layout) if isinstance(layout, ResNetLayout) else _ViTMaps(layout)


def _resnet(layout: ResNetLayout) -> nn.Module:
    trunk: nn.Module = ResNet(
        block=BasicBlock if layout.block == "basic" else Bottleneck,
        layers=layout.layers,
        channels=layout.channels,
        num_classes=0,
        global_pool="",
    )
    return trunk


class _ViTMaps(VisionTransformer):  # type: ignore[misc]
    """The tokens behind the last LayerNorm as a map, without the class token.

    At sizes other than the layout's the position embedding is resampled (bicubic). DINO's own code does so too, without
    antialiasing; MoCo v3's takes 224 pixels only.
    """

    def __init__(self, layout: ViTLayout) -> None:
        super().__init__(
            img_size=layout.size,
            patch_size=layout.patch,
            embed_dim=layout.width,
            depth=layout.depth,
            num_heads=layout.heads,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_classes=0,
            global_pool="",
            dynamic_img_size=True,
            weight_init="skip",  # every tensor is loaded
        )
        self.patch = layout.patch

    def forward(self, images: Tensor) -> Tensor:
        """Raises PCDError if the images do not divide into patches."""
        b, _, height, width = images.shape
        if height % self.patch or width % self.patch:
            raise PCDError(
                f"a teacher with patches of {self.patch} pixels cannot take images of {height} x {width}; choose a "
                f"view size that is a multiple of {self.patch}"
            )
        tokens = self.forward_features(images)  # (B, 1 + h*w, C)
        h, w = height // self.patch, width // self.patch
        maps: Tensor = tokens[:, 1:].transpose(1, 2).reshape(b, -1, h, w)  # (B, C, h, w)
        return maps
