"""Settings of the probes, without torch: plans need them.

No probe is of the paper's abstract or of the released code, so every default is marked `ours`; whose protocol it
follows stands in the model's docstring.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from pcd.settings import Settings, setting

__all__ = [
    "DEPARTURES", "PROBES",
    "FeaturesSettings", "KnnSettings", "LinearSettings", "LowShotSettings", "ProbeSettings", "probe_settings",
]  # fmt: skip

Share = Annotated[float, Field(gt=0, lt=1)]


class _OnFeatures(Settings):
    base: str | None = setting(
        None, "the named protocol that this one is, or departs from; the difference is told and kept", "ours"
    )
    set: str = setting("imagenet", "name of a set of classes, of `sets`", "ours")
    size: int = setting(
        224, "side of the central crop, pixels; the shorter side at 256/224 of it", "ours", ge=32, multiple_of=32
    )


class LinearSettings(_OnFeatures):
    """A linear classifier; defaults and schedule are those of facebookresearch/moco@010242b main_lincls.py.

    The rate of 30 was found for MoCo's features: where a backbone's are much larger, the loss and `train_metrics` tell.
    """

    kind: Literal["linear"] = "linear"
    epochs: int = setting(100, "passes over the training features", "ours", ge=1)
    batch: int = setting(256, "features of one step", "ours", ge=1)
    learning_rate: float = setting(30.0, "peak, for the batch as it is", "ours", gt=0)
    momentum: float = setting(0.9, "of SGD", "ours", ge=0, lt=1)
    weight_decay: float = setting(0.0, "of weights and biases", "ours", ge=0)
    decay_at: tuple[Share, ...] = setting((0.6, 0.8), "shares of the epochs behind which the rate falls to 0.1", "ours")


class KnnSettings(_OnFeatures):
    """The weighted nearest-neighbour classifier (Wu et al. 2018, arXiv 1805.01978).

    Defaults of facebookresearch/dino@04c0ad9 eval_knn.py.
    """

    kind: Literal["knn"] = "knn"
    neighbours: int = setting(20, "training images that vote", "ours", ge=1)
    temperature: float = setting(0.07, "of the votes' weights exp(cosine / temperature)", "ours", gt=0)


class LowShotSettings(_OnFeatures):
    """Multinomial logistic regression on a small class-balanced share of the training images, once for each draw.

    Features centred and of unit length, no intercept, and the penalty of facebookresearch/msn@5474d5f logistic_eval.py.
    """

    kind: Literal["low_shot"] = "low_shot"
    share: float = setting(0.01, "of the training images; as many of each class", "ours", gt=0, le=1)
    trials: int = setting(5, "draws of that share, each with a classifier of its own; the mean counts", "ours", ge=1)
    penalty: float = setting(
        0.00025, "p of the term p/2 · |W|² beside the sum of the images' losses (L2)", "ours", ge=0
    )
    iterations: int = setting(300, "of L-BFGS at most", "ours", ge=1)


ProbeSettings = LinearSettings | KnnSettings | LowShotSettings

PROBES: Final[Mapping[str, type[ProbeSettings]]] = {
    "linear": LinearSettings, "knn": KnnSettings, "low_shot": LowShotSettings,
}  # fmt: skip
"""Kinds of protocol that are probes: cells of the stage `probe`, on features of the stage `features`."""

_ONCE: Final = "training features are of the central crop: computed once, so without random crops and flips"
DEPARTURES: Final[Mapping[str, tuple[str, ...]]] = {
    "linear": (_ONCE, "accuracy behind the last epoch, where main_lincls.py reports the best of all on the test set"),
    "knn": ("images are resized bilinearly, where eval_knn.py does so bicubically",),
    "low_shot": (
        "the backbone stays frozen: figures of fine-tuning on 1 % or 10 % (SimCLR, SEED) are another experiment",
        "shares are drawn anew for each trial, not read from published lists",
        "both splits are centred by the training share's mean, where logistic_eval.py centres each by its own",
    ),
}
"""What a probe of each kind does otherwise than the recipe it follows; in its result, and under the table."""


class FeaturesSettings(Settings):
    """What the stage `features` computes: `set` and `size` are those of the probes that read it."""

    set: str = setting("imagenet", "name of a set of classes, of `sets`", "ours")
    size: int = setting(224, "side of the central crop, pixels", "ours", ge=32, multiple_of=32)


def probe_settings(raw: Mapping[str, Any]) -> ProbeSettings:
    """Plain data, `kind` among them, to settings. Raises pydantic's ValidationError."""
    return PROBES[raw["kind"]].model_validate(raw)
