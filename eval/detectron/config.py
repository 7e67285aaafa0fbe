"""A protocol's settings as a Detectron2 configuration: the model zoo's Mask R-CNN R50-FPN, and what differs."""

from typing import Any

from detectron2 import model_zoo

from eval.settings import FinetuneSettings
from pcd.export import DETECTRON2_RESNETS
from pcd.views import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["build_config"]

_BASE = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"


def build_config(settings: FinetuneSettings, student: str, classes: int, device: str, sync_norm: bool) -> Any:
    """The configuration node (yacs is untyped) of `settings` over the backbone `student`.

    RGB input with ImageNet's mean and std, the stride in the 3x3 convolution and nothing frozen: that is how the
    student was pre-trained. A detector fed with BGR instead loses 4 AP without an error (open-mmlab/mmdetection#9111).
    """
    cfg = model_zoo.get_config(_BASE)
    levels = [f"p{i}" for i in range(2, 2 + len(settings.anchor_sizes))]
    norm = "SyncBN" if sync_norm else "BN"

    cfg.MODEL.DEVICE = device
    cfg.MODEL.WEIGHTS = ""
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.MODEL.PIXEL_MEAN = [255 * x for x in IMAGENET_MEAN]
    cfg.MODEL.PIXEL_STD = [255 * x for x in IMAGENET_STD]
    cfg.INPUT.MIN_SIZE_TRAIN = settings.train_sizes
    cfg.INPUT.MIN_SIZE_TEST = settings.test_size
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = settings.max_size

    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = DETECTRON2_RESNETS[student]
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.FPN.NORM = norm
    cfg.MODEL.FPN.OUT_CHANNELS = settings.fpn_channels

    cfg.MODEL.RPN.IN_FEATURES = levels
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size] for size in settings.anchor_sizes]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN, cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = settings.proposals_before_nms
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = settings.proposals

    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = settings.rois_per_image
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = settings.box_head_width
    cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = settings.roi_sampling_ratio
    cfg.MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO = settings.roi_sampling_ratio
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = settings.mask_head_convs
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = settings.mask_head_width
    cfg.MODEL.ROI_MASK_HEAD.NORM = norm
    cfg.TEST.DETECTIONS_PER_IMAGE = settings.detections_per_image
    cfg.SOLVER.IMS_PER_BATCH = settings.batch
    return cfg
