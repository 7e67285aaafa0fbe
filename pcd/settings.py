"""The method's settings: validated once, here, and plain data from then on.

Every field says where its default comes from: `abstract` (the paper's abstract), `code` (the authors' released code,
allo-rene/pcd@6b0ad4d) or `ours`. The marks travel into the AP table, so that a reader sees what a figure rests on.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["LossSettings", "Mark", "OptimizerSettings", "PretrainSettings", "Settings", "ViewSettings", "setting"]

Mark = Literal["abstract", "code", "ours"]


def setting(default: Any, description: str, mark: Mark, **bounds: Any) -> Any:
    """A field with its meaning and unit, its bounds (`gt`, `ge`, `le`, …), and the source of its default."""
    return Field(default=default, description=description, json_schema_extra={"mark": mark}, **bounds)


class Settings(BaseModel):
    """Frozen, and without room for a misspelt field."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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


class PretrainSettings(Settings):
    """One PCD pre-training run."""

    student: str = setting("resnet18", "name of the student's backbone", "abstract")
    attention: bool = setting(True, "widen the student's receptive field by multi-head self-attention", "abstract")
    attention_heads: int = setting(8, "heads of that attention", "ours", ge=1)
    adaptor_keeps_last_norm: bool = setting(
        False, "keep the BatchNorm without affine that ends some teachers' heads", "code"
    )
    epochs: float = setting(100.0, "passes over the images", "code", gt=0)
    global_batch: int = setting(1024, "images of one step over all processes", "code", ge=2)
    views: ViewSettings = ViewSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "auto: bf16 autocast where the processor gains from it", "ours"
    )

    @model_validator(mode="after")
    def _warm_up_ends_before_training_does(self) -> "PretrainSettings":
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warm-up takes {self.optimizer.warmup_epochs:g} of {self.epochs:g} epochs; "
                "lower optimizer.warmup_epochs or raise epochs"
            )
        return self
