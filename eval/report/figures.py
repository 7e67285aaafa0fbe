"""The figures of a report, each with what to see in it, from the folders of the stages that drew them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from eval.report.content import Figure
from eval.report.words import (
    ap_words,
    curve_words,
    field_words,
    gallery_words,
    interval_words,
    loss_words,
    mistake_words,
    similarity_words,
)

__all__ = [
    "Gathered",
    "Source",
    "curve_figure",
    "field_figures",
    "gallery_figures",
    "similarity_figures",
    "table_figures",
]

_BEGIN: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = b"IEND\xaeB`\x82"
_UNTOLD: Final = "The file with its figures is gone or unreadable."


@dataclass(frozen=True, slots=True)
class Source:
    """A finished stage."""

    stage: str
    folder: Path
    files: frozenset[str]
    """Names of what it left, whether it is still there or not."""
    command: str


@dataclass(slots=True)
class Gathered:
    """Figures, and a line for each that should be there and is not."""

    figures: list[Figure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, source: Source, file: str, name: str, heading: str, caption: str, words: Callable[[], str]) -> None:
        """Nothing where the stage left no such file: not every protocol has every figure."""
        if file not in source.files:
            return
        try:
            png = read_png(source.folder / file)
        except (OSError, ValueError) as error:
            self.missing.append(f"Figure “{heading}”: {file} of {source.stage} {error}.")
            return
        try:
            alt = words()
        except (OSError, ValueError, KeyError, TypeError):  # the picture is there all the same
            alt = _UNTOLD
        self.figures.append(
            Figure(
                name=name, heading=heading, caption=caption, alt=f"{heading}. {alt}", png=png, command=source.command
            )
        )


def read_png(path: Path) -> bytes:
    """Raises ValueError, or OSError with as short a text, if it is gone or cut short."""
    try:
        png = path.read_bytes()
    except OSError as error:
        raise OSError(f"cannot be read ({error.strerror})") from None
    if not (png.startswith(_BEGIN) and png.endswith(_END)):
        raise ValueError("is damaged")
    return png


def table_figures(source: Source, record: Mapping[str, Any], curves: Mapping[str, Path]) -> Gathered:
    """Of an aggregate stage: `record` is its ap_table.json, `curves` maps the labels of losses to metrics.jsonl."""
    found, folder = Gathered(), source.folder
    found.add(
        source, "ap_by_arm.png", "ap", "AP by arm",
        "Bars are means over seeds, dots are single seeds, and lines one standard deviation of the sample. Arms whose "
        "dots lie among each other cannot be told apart.",
        lambda: ap_words(record),
    )  # fmt: skip
    found.add(
        source, "intervals.png", "intervals", "Intervals and differences",
        "Left, each arm's AP with its interval over images; right, its difference to other arms: the thick line holds "
        "the chance of the images (the same for both arms), the thin one that of the seeds (none where an arm has one: "
        "images alone say nothing of what another seed gives). A difference is more than chance where both are there "
        "and neither touches 0.",
        lambda: interval_words(folder / "intervals.csv"),
    )  # fmt: skip
    found.add(
        source, "mistakes.png", "mistakes", "What mistakes cost",
        "How many points of AP50 an arm would gain if one kind of mistake were mended: the higher a bar, the more it "
        "loses there.",
        lambda: mistake_words(folder / "mistakes.csv"),
    )  # fmt: skip
    found.add(
        source, "losses.png", "losses", "Losses",
        "The loss by step, as a mean of five records, a line for each seed; an arm has the same colour here and among "
        "the mistakes. Fine-tuning losses of the arms can be compared with each other; those of pre-trainings only "
        "where the objective is the same.",
        lambda: loss_words(curves),
    )  # fmt: skip
    return found


def gallery_figures(source: Source, record: Mapping[str, Any]) -> Gathered:
    """Of an aggregate stage: one for each labelled set."""
    found = Gathered()
    for file in sorted((name for name in source.files if Path(name).match("detections*.png")), key=_stem):
        of_set = _stem(file).removeprefix("detections").removeprefix("-")
        found.add(
            source, file, f"detections-{of_set}" if of_set else "detections",
            "Detections" + (f" on {of_set}" if of_set else ""),
            "The first evaluation images with objects: the ground truth, and the best detections of each arm's first "
            "seed, as many as there are objects, with their scores. AP counts all detections.",
            lambda: gallery_words(record),
        )  # fmt: skip
    return found


def _stem(file: str) -> str:
    return file.removesuffix(".png")


def field_figures(sources: Mapping[str, Source]) -> Gathered:
    """Of pre-trainings by their names."""
    found = Gathered()
    for name, source in sources.items():
        found.add(
            source, "receptive_field.png", f"receptive-field-{name.replace('.', '-')}",
            f"Effective receptive field of {name}",
            "How much each pixel of an image moves the middle of the student's map, bright for much (the fourth root "
            "of it, each panel by its own largest): left without, and right, where the student has it, with "
            "self-attention. The squares hold a half and 95 % of it; larger ones on the right mean that self-attention "
            "looks farther. Where they reach the image's border, it is the image that ends, and not the field.",
            lambda file=source.folder / "receptive_field.json": field_words(file),  # type: ignore[misc]
        )  # fmt: skip
    return found


def similarity_figures(sources: Mapping[str, Source]) -> Gathered:
    """Of pre-trainings by their names; those whose student is held against no teacher's pixel have left none."""
    found = Gathered()
    for name, source in sources.items():
        found.add(
            source, "similarity_maps.png", f"similarity-{name.replace('.', '-')}", f"Pixels of {name} and its teacher",
            "Where the marked pixel of an image is found in the teacher's map, by the student's output and by the "
            "teacher's own: bright for similar. The more alike the two maps of a row, the more the student has learnt.",
            lambda file=source.folder / "similarity_maps.json": similarity_words(file),  # type: ignore[misc]
        )  # fmt: skip
    return found


def curve_figure(sources: Mapping[str, Source]) -> Gathered:
    """Of watches by the names of their pre-trainings; drawn here, since no stage knows all of them."""
    from eval.report.curve_figure import curves_of, draw_curves  # matplotlib, which only this figure needs

    found, results = Gathered(), {}
    for name, source in sources.items():
        try:
            results[name] = json.loads((source.folder / "result.json").read_text())
        except (OSError, ValueError):
            found.missing.append(f"AP against epoch of {name}: result.json of {source.stage} is gone or damaged.")
    label, curves = curves_of(results)
    if curves:
        told = (
            "What snapshots of the student are worth while it is pre-trained, by a short evaluation: its level is not "
        )
        heading, commands = f"By epoch: {label}", [sources[name].command for name in curves]
        found.figures.append(
            Figure(
                name="epochs", heading=heading, png=draw_curves(label, curves), command="\n".join(commands),
                caption=told + "that of the table. A line that still climbs at its end would gain by longer training.",
                alt=f"{heading}. {curve_words(curves)}",
            )
        )  # fmt: skip
    return found
