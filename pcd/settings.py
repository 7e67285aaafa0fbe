"""The method's settings: validated once, here, and plain data from then on.

Every field says where its default comes from: `abstract` (the paper's abstract), `code` (the authors' released code,
allo-rene/pcd@6b0ad4d), `comparator` (the released code of the method that an arm compares PCD with, named in its
entry of pcd.arms) or `ours`. The marks travel into the AP table, so that a reader sees what a figure rests on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticUndefined

from pcd.arms import ARMS, options_of
from pcd.errors import PCDError, unknown_name
from pcd.layouts import ResNetLayout

__all__ = [
    "RESNET_PREFIX", "STUDENT_NAMES", "TIMM_PREFIX",
    "AbsolutePath", "LossSettings", "Mark", "OptimizerSettings", "Precision", "PretrainSettings", "Settings",
    "StageRuntime", "ViewSettings", "check_student_name", "flat_settings", "of_arm", "setting", "with_changes",
]  # fmt: skip

Mark = Literal["abstract", "code", "comparator", "ours"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


def setting(default: Any, description: str, mark: Mark, **bounds: Any) -> Any:
    """A field with its meaning and unit, its bounds (`gt`, `ge`, `le`, …), and the source of its default."""
    return Field(default=default, description=description, json_schema_extra={"mark": mark}, **bounds)


class Settings(BaseModel):
    """Frozen, and without room for a misspelt field."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def origin(self, name: str) -> Any:
        """The value of a field on whose source its mark is the word."""
        return type(self).model_fields[name].default


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""A file or folder as the user names it, with `~`, or relative to where the command is given."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]
Sigma = Annotated[float, Field(gt=0)]


class ViewSettings(Settings):
    """The two random views of an image."""

    size: int = setting(224, "side of the square crop, pixels; a multiple of 32", "code", ge=32, multiple_of=32)
    min_scale: float = setting(0.08, "smallest share of the image's area that a crop covers", "code", gt=0, le=1)
    jitter: tuple[Strength, Strength, Strength, Annotated[float, Field(ge=0, le=0.5)]] = setting(
        (0.4, 0.4, 0.2, 0.1), "strength of brightness, contrast, saturation and hue jitter", "code"
    )
    jitter_probability: Fraction = setting(0.8, "share of views whose colours are jittered", "code")
    grayscale_probability: Fraction = setting(0.2, "share of views turned grey", "code")
    blur_probability: tuple[Fraction, Fraction] = setting((1.0, 0.1), "share blurred, view 1 and view 2", "code")
    blur_sigma: tuple[Sigma, Sigma] = setting((0.1, 2.0), "range of the blur's sigma, pixels at 224", "code")
    solarize_probability: tuple[Fraction, Fraction] = setting((0.0, 0.2), "share solarized, view 1 and view 2", "code")

    @model_validator(mode="after")
    def _sigma_rises(self) -> "ViewSettings":
        if self.blur_sigma[0] > self.blur_sigma[1]:
            raise ValueError(f"blur_sigma goes from the smaller to the larger, got {self.blur_sigma}")
        return self


class LossSettings(Settings):
    temperature: float = setting(0.2, "temperature of the contrast", "code", gt=0)
    negatives: int = setting(65536, "length of the queue of negatives", "code", ge=1)
    pairing: Literal["crossed", "same", "aligned"] = setting(
        "crossed",
        "which teacher view a student view meets: the other one at the same grid position (crossed) or at the same "
        "place of the image (aligned), or itself (same)",
        "code",
    )
    backend: Literal["auto", "attention", "chunks", "reference"] = setting(
        "auto", "how the loss is summed over the negatives; it changes the rounding only", "ours"
    )


class OptimizerSettings(Settings):
    name: Literal["lars", "adamw"] = setting("lars", "optimizer", "code")
    learning_rate: float = setting(1.0, "per 256 images of the global batch", "code", gt=0)
    weight_decay: float = setting(1e-5, "not applied to biases and normalisation", "code", ge=0)
    momentum: float = setting(0.9, "of LARS; AdamW uses it as its first beta", "code", ge=0, lt=1)
    warmup_epochs: float = setting(10.0, "epochs of linear warm-up, raised at every step", "code", ge=0)


STUDENT_NAMES: Final = ("resnet18", "resnet34", "resnet50", "mobilenet_v3_large", "shufflenet_v2_x1_0")
"""Those that pcd.students builds of torchvision's parts; named here so that plans need no torch."""
TIMM_PREFIX: Final = "timm:"
RESNET_PREFIX: Final = "resnet:"


def check_student_name(name: str) -> None:
    """Raises PCDError on a name that no student has; whether timm has a model, only its import tells."""
    if name.startswith(RESNET_PREFIX):
        try:
            ResNetLayout.from_student_name(name)
        except ValueError:
            raise PCDError(
                f'unknown student "{name}": write a ResNet by its numbers as resnet:basic:2,2,2,2:24,48,96,192 '
                "(block, layers and channels of the four stages)"
            ) from None
        return
    if name not in STUDENT_NAMES and not (name.startswith(TIMM_PREFIX) and name != TIMM_PREFIX):
        raise unknown_name("student", name, (*STUDENT_NAMES, f"{TIMM_PREFIX}MODEL"))


def _known_student(name: str) -> str:
    try:
        check_student_name(name)
    except PCDError as error:
        raise ValueError(error) from None
    return name


StudentName = Annotated[str, AfterValidator(_known_student)]


def _known_objective(name: str) -> str:
    known = {arm.objective for arm in ARMS.values() if arm.kind == "pretrain"}
    if name not in known:
        raise ValueError(unknown_name("objective", name, known))
    return name


ObjectiveName = Annotated[str, AfterValidator(_known_objective)]


class PretrainSettings(Settings):
    """One pre-training run, of PCD or of what it is compared with."""

    objective: ObjectiveName = setting("pcd", "what the student learns by; the arm says it", "abstract")
    options: dict[str, float] = setting(
        {}, "numbers that the objective alone has (see pcd.arms); those of its arm where not named", "comparator"
    )
    student: StudentName = setting(
        "resnet18", f"the student's backbone: {', '.join(STUDENT_NAMES)}, or timm:MODEL", "abstract"
    )
    attention: bool = setting(True, "widen the student's receptive field by multi-head self-attention", "abstract")
    attention_heads: int = setting(8, "heads of that attention", "ours", ge=1)
    adaptor_keeps_last_norm: bool = setting(
        False, "keep the BatchNorm without affine that ends some teachers' heads", "code"
    )
    adaptor_gate: Literal["pooled", "pixel"] = setting(
        "pooled",
        "what gates the activations of the teacher's head: their mean over pixels, which keeps what the teacher says, "
        "or each pixel for itself",
        "code",
    )
    epochs: float = setting(100.0, "passes over the images", "code", gt=0)
    global_batch: int = setting(1024, "images of one step over all processes", "code", ge=2)
    views: ViewSettings = ViewSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    accumulation: int = setting(
        1,
        "parts of a step's batch, computed in turn; BatchNorm, and the mean of `aligned`, see one at a time",
        "ours",
        ge=1,
    )
    precision: Precision = setting(
        "auto", "auto: bf16 autocast where the processor gains from it; fp16 scales the loss", "ours"
    )

    @field_validator("options")
    @classmethod
    def _options_are_the_objectives(cls, given: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if "objective" not in info.data:  # it was refused
            return given
        known = options_of(info.data["objective"])
        for name, value in given.items():
            if name not in known:
                raise ValueError(unknown_name(f"option of the objective {info.data['objective']}", name, known))
            if not known[name].least <= value <= known[name].most:
                raise ValueError(f"{name} lies between {known[name].least:g} and {known[name].most:g}, got {value:g}")
        return {name: option.value for name, option in known.items()} | given

    def origin(self, name: str) -> Any:
        if name == "options":
            return {option: default.value for option, default in options_of(self.objective).items()}
        return super().origin(name)

    @model_validator(mode="after")
    def _parts_fit_the_batch_and_the_batch_fits_the_queue(self) -> "PretrainSettings":
        if self.global_batch % self.accumulation:
            raise ValueError(
                f"global_batch {self.global_batch} does not divide into {self.accumulation} parts (accumulation)"
            )
        if self.loss.negatives < self.global_batch:
            raise ValueError(
                f"loss.negatives {self.loss.negatives} is less than one global_batch of {self.global_batch}: each step "
                "would overwrite the whole queue; raise loss.negatives or lower global_batch"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_ends_before_training_does(self) -> "PretrainSettings":
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warm-up takes {self.optimizer.warmup_epochs:g} of {self.epochs:g} epochs; "
                "lower optimizer.warmup_epochs or raise epochs"
            )
        return self


class StageRuntime(Settings):
    """How a machine runs a stage. It changes a result by no more than rounding, and is no part of a stage's key."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is one")
    threads: int = Field(0, ge=0, description="CPU threads of a stage process; 0: as many as there are cores")
    workers: int = Field(4, ge=0, description="data-loading processes of each rank; 0: load in the training process")
    compile: bool = Field(False, description="torch.compile the student; needs a C++ compiler, or Triton on CUDA")
    log_every: int = Field(20, ge=1, description="steps between two records of the metrics")
    checkpoint_seconds: float = Field(600, ge=0, description="seconds between two checkpoints")
    checkpoint_steps: int = Field(0, ge=0, description="steps between two checkpoints, besides; 0: by time alone")
    keep_checkpoints: int = Field(2, ge=1, le=9, description="newest checkpoints that are kept, in case one is damaged")
    snapshot_epochs: float = Field(
        0, ge=0, description="epochs between two snapshots of the backbone that are kept; 0: none (see eval.watch)"
    )
    max_unreadable_share: float = Field(
        0.01, ge=0, le=1, description="share of the images that may be damaged; the next one is seen in their place"
    )
    knn_folder: AbsolutePath | None = Field(
        None, description="labelled images, a folder per class (or train/ and val/ of them), to watch kNN top-1 on"
    )
    knn_epochs: float = Field(1.0, gt=0, description="epochs between two kNN figures")


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def with_changes(settings: SettingsT, changes: Mapping[str, Any]) -> SettingsT:
    """With dotted settings laid over. Raises pydantic's ValidationError; KeyError for a group that there is not."""
    plain = settings.model_dump(mode="json")
    for name, value in changes.items():
        *groups, last = name.split(".")
        place = plain
        for group in groups:
            place = place[group]
        place[last] = value
    return type(settings).model_validate(plain)


def of_arm(settings: PretrainSettings, arm: str) -> PretrainSettings:
    """What a benchmark's pre-training settings come to in one of its arms.

    Raises:
        ValueError: the arm is no pre-training, or it would be the same as the arm pcd.
    """
    entry = ARMS[arm]
    if entry.kind != "pretrain":
        raise ValueError(f"the arm {arm} is not pre-trained")
    settings_of_arm = with_changes(settings, {"objective": entry.objective, "options": {}, **entry.changes})
    if arm != "pcd" and settings_of_arm == settings:
        told = ", ".join(f"{name} {value}" for name, value in entry.changes.items())
        raise ValueError(f"the arm {arm} is no other than pcd here, since pretrain has {told} already; leave it out")
    return settings_of_arm


def flat_settings(model: BaseModel, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Every setting by its dotted name: its value, and the mark of that value (`ours` when it is not the default)."""
    flat: dict[str, tuple[Any, str]] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, Mapping) and all(isinstance(inner, BaseModel) for inner in value.values()):
            for key, inner in value.items():
                flat |= flat_settings(inner, f"{prefix}{name}.{key}.")
        elif isinstance(value, BaseModel):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            default = model.origin(name) if isinstance(model, Settings) else field.default
            is_default = default is not PydanticUndefined and value == default
            flat[prefix + name] = (value, str(extra.get("mark", "ours")) if is_default else "ours")
    return flat
