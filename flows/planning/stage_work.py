"""What a stage has to do: steps, work of a step, memory and disk, by formulas that are stated here; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from eval.finetune_settings import FinetuneSettings
from eval.probes.settings import KnnSettings, LinearSettings, LowShotSettings, probe_settings
from eval.settings import ClassSet, DataSettings, LabelledSet, ShapesData
from flows.planning.input_files import image_counts
from flows.planning.measurements import CUDA_MB
from flows.planning.network_work import backbone_size, detector_gmacs, detector_millions, mlp_gmacs, trunk_gmacs
from flows.planning.stages import Plan, Stage
from pcd.teachers.registry import TEACHERS

__all__ = ["ASSUMED_IMAGES", "Circumstances", "Images", "Work", "circumstances", "work_of"]

ASSUMED_IMAGES: Final = {"pool": 1_281_167, "train": 118_287, "val": 5_000}
"""ImageNet and COCO 2017, where the user's own data are not there to be counted."""

ASSUMED_OF_CLASSES: Final = {"pool": 0, "train": 1_281_167, "val": 50_000}
"""ImageNet."""

_MB: Final = 1e6
_CPU_BASE_MB: Final = 700
"""A process that has imported torch and torchvision; measured."""
_KEPT: Final = 2.5
"""Copies of a convolution's output that training holds: of the BatchNorm and the activation behind it as well."""
_BYTES_PER_JPEG_PIXEL: Final = 0.15
"""Of the shapes' pictures at quality 95; measured."""


@dataclass(frozen=True, slots=True)
class Images:
    pool: int
    train: int
    val: int
    assumed: bool
    """Whether some of them could not be counted."""


@dataclass(frozen=True, slots=True)
class Work:
    steps: int
    """0: this kind of stage has none that are alike."""
    step_gmacs: float
    """Multiply-adds of one step over all processes, in 1e9."""
    other: float
    """What stands beside the steps, in a unit of its kind's own: GMAC of the evaluation, images, megabytes, cells."""
    memory_mb: float
    """Of the process that needs most: on a GPU, of its memory."""
    disk_mb: float
    """The most that its folder takes: checkpoints that are kept, and what it leaves."""
    like: dict[str, Any] = field(default_factory=dict)
    """Stages with equal entries have steps of equal length on the same hardware."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a stage's work depends on besides its settings."""

    images: Images
    is_shapes: bool
    """Whether the benchmark's `data` is drawn."""
    ranks: int = 1
    keep_checkpoints: int = 1
    compile: bool = False
    on_gpu: bool = False
    """Whether training runs there, for its memory."""
    of_sets: Mapping[str, Images] = field(default_factory=dict)
    """Name of each of the benchmark's `sets` to what it has, without a pool."""

    def labelled_in(self, name: str | None) -> Images:
        """The images of a set by its name, or of the benchmark's `data`."""
        return self.of_sets.get(name, self.images) if name else self.images

    def is_drawn(self, name: str | None) -> bool:
        """Whether a set by its name, or the benchmark's `data`, has squares: each of the `sets` has photographs."""
        return self.is_shapes and not name


def circumstances(plan: Plan, *, on_gpu: bool) -> Circumstances:
    """Of the plan's stages; images are counted as far as they are there."""
    data, runtime = plan.benchmark.data, plan.benchmark.runtime
    return Circumstances(
        _counted(data), isinstance(data, ShapesData), runtime.processes * runtime.nodes, runtime.keep_checkpoints,
        runtime.compile, on_gpu, {name: _counted(one) for name, one in plan.benchmark.sets.items()},
    )  # fmt: skip


def _counted(data: DataSettings | LabelledSet) -> Images:
    if isinstance(data, ShapesData):
        return Images(data.pool, data.train, data.val, assumed=False)
    counts = image_counts(data)
    assumed = ASSUMED_OF_CLASSES if isinstance(data, ClassSet) else ASSUMED_IMAGES
    found = {name: assumed[name] if count is None else count for name, count in counts.items()}
    return Images(**found, assumed=None in counts.values())


def work_of(stage: Stage, at: Circumstances) -> Work:
    match stage.kind:
        case "teacher":
            return _teacher(stage)
        case "data":
            return _data(stage, at)
        case "pretrain":
            return _pretrain(stage, at)
        case "watch":
            return _watch(stage, at)
        case "backbone":
            megabytes = 4 * backbone_size(stage.settings["student"]).millions
            return Work(0, 0, megabytes, _CPU_BASE_MB + 3 * megabytes, 2 * megabytes)
        case "finetune":
            return _finetune(stage, at)
        case "features":
            return _features(stage, at)
        case "probe":
            return _probe(stage, at)
        case "aggregate":
            cells = len(stage.settings["cells"])
            return Work(0, 0, cells, 350 + 0.1 * cells, 1 + 0.3 * cells)


def _teacher(stage: Stage) -> Work:
    entry = TEACHERS[stage.settings["teacher"]]
    megabytes = entry.megabytes or 100.0
    return Work(0, 0, megabytes, _CPU_BASE_MB + 3 * megabytes, 2 * megabytes)


def _data(stage: Stage, at: Circumstances) -> Work:
    data, images = stage.settings["data"], at.labelled_in(stage.id.partition(":")[2])
    count = images.pool + images.train + images.val
    if data["kind"] != "shapes":
        memory = 300 + 0.0006 * count + 0.02 * images.train  # names and sizes; the annotations, read as JSON
        return Work(0, 0, count, memory, 0.00006 * count, {"kind": "coco"})
    disk = count * data["size"] ** 2 * _BYTES_PER_JPEG_PIXEL / _MB
    return Work(0, 0, count, 350, disk, {"kind": "shapes", "size": data["size"]})


def _pretrain(stage: Stage, at: Circumstances) -> Work:
    raw, entry = stage.settings["pretrain"], TEACHERS[stage.settings["teacher"]]
    student, batch = backbone_size(raw["student"]), int(raw["global_batch"])
    scale, grid = raw["views"]["size"] ** 2 / 224**2, (raw["views"]["size"] / 32) ** 2
    projector, predictor = entry.projector_widths(student.channels), entry.predictor_widths()
    negatives, out = raw["loss"]["negatives"], entry.head.widths[-1]

    attention = 4 * student.channels**2 * grid / 1e9 if raw["attention"] else 0.0
    forward = student.gmacs * scale + attention + mlp_gmacs(projector, grid) + mlp_gmacs(predictor, grid)
    teacher = trunk_gmacs(entry.trunk) * scale + mlp_gmacs(entry.head.widths, grid)
    loss = 2 * grid * negatives * out / 1e9  # forward, and the gradient to the student
    step = batch * 2 * (teacher + 3 * forward + loss)  # two views; a backward pass is two forward ones
    per_epoch = at.images.pool // batch

    at_once = max(1, batch // (at.ranks * raw["accumulation"]))
    heads = 1000 * (mlp_gmacs(projector, 1) + mlp_gmacs(predictor, 1))  # a weight is one multiply-add a pixel
    trained, queue = student.millions + heads, negatives * out * 4 / _MB
    states = 3 if raw["optimizer"]["name"] == "adamw" else 2  # the weights, and one or two moments of each
    bytes_each = 2 if at.on_gpu and raw["precision"] != "fp32" else 4
    kept = at_once * 2 * scale * student.activations * _KEPT * bytes_each
    head_kept = at_once * 2 * grid * sum(projector + predictor) * _KEPT * bytes_each / _MB
    base = CUDA_MB if at.on_gpu else _CPU_BASE_MB
    memory = base + trained * 4 * (states + 1) + 4 * (entry.megabytes or 100) / 4 + queue + kept + head_kept
    checkpoint = trained * 4 * states + queue
    disk = (at.keep_checkpoints + 1) * checkpoint + 2 * student.millions * 4  # one more while it is written
    like = {
        "objective": raw["objective"], "student": raw["student"], "teacher": stage.settings["teacher"],
        "attention": raw["attention"], "size": raw["views"]["size"], "batch": batch,
        "accumulation": raw["accumulation"], "negatives": negatives, "precision": raw["precision"],
        "compile": at.compile,
    }  # fmt: skip
    return Work(max(1, round(raw["epochs"] * per_epoch)), step, 1, memory, disk, like)


def _watch(stage: Stage, at: Circumstances) -> Work:
    """One short fine-tuning for each snapshot, in turn."""
    count = max(1, int(stage.settings["epochs"] / stage.settings["every_epochs"]))
    one = replace(stage, settings=stage.settings["evaluation"])
    parts = [_features(one, at), _probe(one, at)] if "probe" in one.settings else [_finetune(one, at)]
    whole = count * sum(part.steps * part.step_gmacs + part.other for part in parts)
    last = parts[-1]
    return Work(0, 0, whole, max(part.memory_mb for part in parts), sum(part.disk_mb for part in parts), last.like)


def _finetune(stage: Stage, at: Circumstances) -> Work:
    raw, student = stage.settings["finetune"], stage.settings["student"]
    settings = FinetuneSettings.model_validate(raw)
    images, is_drawn = at.labelled_in(settings.set), at.is_drawn(settings.set)
    train_pixels = _pixels(sum(settings.train_sizes) / len(settings.train_sizes), settings.max_size, is_drawn)
    test_pixels = _pixels(settings.test_size, settings.max_size, is_drawn)
    step = 3 * settings.batch * detector_gmacs(settings, student, train_pixels, training=True)
    if settings.freeze_backbone:  # forward alone; of C4's res5, which the gradient passes, this is too little
        step -= 2 * settings.batch * backbone_size(student).gmacs * train_pixels / 224**2
    evaluation = images.val * detector_gmacs(settings, student, test_pixels, training=False)
    evaluation += settings.precise_bn_iterations * step / 3  # forward alone

    at_once = max(1, settings.batch // (at.ranks))
    millions, size = detector_millions(settings, student), backbone_size(student)
    states = 3 if settings.optimizer == "adamw" else 2
    largest = _pixels(max(settings.train_sizes), settings.max_size, is_drawn)
    backbone = largest / 224**2 * size.activations * _KEPT * 4
    if settings.has_pyramid:
        pyramid = largest / 16 * 1.33 * settings.fpn_channels * 4 * 4 / _MB
        rois = settings.rois_per_image * 49 * settings.fpn_channels * 2 * 4 / _MB
    else:  # the regions at 14 x 14 pixels, and what res5 puts out of each: about a twentieth of the backbone
        pyramid = 0.0
        rois = settings.rois_per_image * (196 * size.widths[2] * 4 / _MB + size.activations / 20 * _KEPT * 4)
    masks = settings.rois_per_image / 4 * 196 * settings.mask_head_width * 2 * (settings.mask_head_convs + 4) * 4 / _MB
    masks = masks if settings.has_masks else 0.0
    base = CUDA_MB if at.on_gpu else _CPU_BASE_MB + 150  # Detectron2 is imported as well
    memory = base + millions * 4 * (states + 1) + at_once * (backbone + pyramid + rois + masks)
    checkpoint, predictions = millions * 4 * states, images.val * settings.detections_per_image * 300 / _MB
    disk = (at.keep_checkpoints + 1) * checkpoint + predictions
    names = (
        "architecture", "batch", "train_sizes", "max_size", "fpn_channels", "anchor_sizes", "proposals_before_nms",
        "proposals", "rois_per_image", "box_head", "box_head_width", "mask_head_convs", "mask_head_width",
        "roi_sampling_ratio", "freeze_backbone", "precision",
    )  # fmt: skip
    like = {"student": student, "shapes": is_drawn, **{name: raw[name] for name in names}}
    return Work(settings.iterations, step, evaluation, memory, disk, like)


# Probes. A step of the stage `features` is an image; of the probes all is counted as beside steps.

_EVALUATIONS: Final = 40
"""Of the loss that L-BFGS needs for a logistic regression; measured: 33 with 13,000 images of 1,000 classes."""
_CLASSES: Final = 1000
"""ImageNet's; of another set only its data stage tells."""
_IMAGES_AT_ONCE: Final = 128


def _features(stage: Stage, at: Circumstances) -> Work:
    raw, size = stage.settings["features"], backbone_size(stage.settings["student"])
    images, scale = at.labelled_in(raw["set"]), raw["size"] ** 2 / 224**2
    count = images.train + images.val
    rows = count * size.channels * 4 / _MB
    base = CUDA_MB if at.on_gpu else _CPU_BASE_MB + 2 * rows  # on a GPU the rows lie in the host's memory
    memory = base + size.millions * 4 + _IMAGES_AT_ONCE * scale * size.activations * 4
    like = {"student": stage.settings["student"], "size": raw["size"]}
    return Work(max(1, count), size.gmacs * scale, 1, memory, 2 * rows, like)


def _probe(stage: Stage, at: Circumstances) -> Work:
    raw, channels = probe_settings(stage.settings["probe"]), backbone_size(stage.settings["student"]).channels
    images = at.labelled_in(raw.set)
    scores = channels * _CLASSES / 1e9  # multiply-adds of one image's; training takes three times as many
    match raw:
        case LinearSettings():
            gmacs = (3 * images.train + images.val) * raw.epochs * scores
        case KnnSettings():
            gmacs = images.train * images.val * channels / 1e9
        case LowShotSettings():
            gmacs = raw.trials * (3 * _EVALUATIONS * raw.share * images.train + images.val) * scores
    base = CUDA_MB if at.on_gpu else _CPU_BASE_MB
    memory = base + (images.train + images.val) * channels * 4 / _MB + 512  # similarities, or scores
    like = {"kind": raw.kind, "student": stage.settings["student"]}
    return Work(0, 0, gmacs, memory, 1 + 3 * channels * _CLASSES * 4 / _MB, like)


def _pixels(shorter: float, longest: float, is_drawn: bool) -> float:
    """Of an image with this shorter side: the shapes' are square, photographs taken as 4:3."""
    return shorter * min(longest, shorter * (1 if is_drawn else 4 / 3))
