"""A protocol's settings as a Detectron2 configuration: one of the model zoo's, and what differs."""

from typing import Any, Final

from detectron2 import model_zoo
from fvcore.common.config import CfgNode

from eval.detectron import c4_heads, student_backbone
from eval.finetune_settings import Architecture, FinetuneSettings
from pcd.errors import PCDError
from pcd.export import DETECTRON2_RESNETS
from pcd.views import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["build_config"]

_ZOO: Final[dict[Architecture, str]] = {
    "mask_rcnn_fpn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "mask_rcnn_c4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    "faster_rcnn_fpn": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "faster_rcnn_c4": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
}


def build_config(settings: FinetuneSettings, student: str, classes: int, device: str, sync_norm: bool) -> Any:
    """The configuration node (yacs is untyped) of `settings` over the backbone `student`.

    RGB input with ImageNet's mean and std, the stride in the 3x3 convolution and nothing frozen: that is how the
    student was pre-trained. A detector fed with BGR instead loses 4 AP without an error (open-mmlab/mmdetection#9111).

    Raises PCDError for a C4 detector over anything but a ResNet of Detectron2's.
    """
    if not settings.has_pyramid and student not in DETECTRON2_RESNETS:
        raise PCDError(
            f'{settings.architecture} cannot stand on "{student}", whose last stage Detectron2 cannot make a head of; '
            "choose a protocol with an FPN"
        )
    cfg = model_zoo.get_config(_ZOO[settings.architecture])
    norm = "SyncBN" if sync_norm else "BN"

    cfg.MODEL.DEVICE = device
    cfg.MODEL.WEIGHTS = ""
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [255 * x for x in IMAGENET_MEAN]
    cfg.MODEL.PIXEL_STD = [255 * x for x in IMAGENET_STD]
    cfg.INPUT.MIN_SIZE_TRAIN = settings.train_sizes
    cfg.INPUT.MIN_SIZE_TEST = settings.test_size
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = settings.max_size

    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    if student in DETECTRON2_RESNETS:
        cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = DETECTRON2_RESNETS[student]
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        cfg.MODEL.RESNETS.NORM = norm
    else:
        cfg.MODEL.BACKBONE.NAME = student_backbone.build_student_fpn_backbone.__name__
        cfg.MODEL.STUDENT = CfgNode({"NAME": student, "NORM": norm})

    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN, cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = settings.proposals_before_nms
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = settings.proposals
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = settings.rois_per_image
    cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = settings.roi_sampling_ratio
    cfg.MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO = settings.roi_sampling_ratio
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = settings.mask_head_convs
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = settings.mask_head_width
    if settings.has_pyramid:
        _pyramid(cfg, settings, norm if settings.norm_everywhere else "")
    else:
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [list(settings.anchor_sizes)]
        cfg.MODEL.ROI_HEADS.NAME = c4_heads.StudentRes5ROIHeads.__name__
        cfg.MODEL.ROI_HEADS.EXTRA_NORM = settings.extra_norm
    cfg.TEST.DETECTIONS_PER_IMAGE = settings.detections_per_image
    cfg.SOLVER.IMS_PER_BATCH = settings.batch
    return cfg


def _pyramid(cfg: Any, settings: FinetuneSettings, norm: str) -> None:
    cfg.MODEL.FPN.NORM = norm
    cfg.MODEL.FPN.OUT_CHANNELS = settings.fpn_channels
    cfg.MODEL.RPN.IN_FEATURES = [f"p{i}" for i in range(2, 2 + len(settings.anchor_sizes))]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size] for size in settings.anchor_sizes]
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = settings.box_head_width
    if settings.box_head == "4conv1fc":
        cfg.MODEL.ROI_BOX_HEAD.NUM_CONV, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 4, 1
        cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = settings.fpn_channels
        cfg.MODEL.ROI_BOX_HEAD.NORM = norm
    cfg.MODEL.ROI_MASK_HEAD.NORM = norm
