"""The last stage: from the cells' results to the AP table and its figures: `python -m eval.aggregate SPEC`.

`settings.cells` lists the cells as {cell, arm, protocol, seed, pretrain, set}; the folder of a cell is the input
`finetune:<cell>` or `probe:<cell>`, that of its pre-training `pretrain:<pretrain>` if it had one, and that of its
labelled set `data:<set>`, or `data` without one. `settings.holes` lists those that should be there and are not: the
same, and the `reason`.

Cells need not have the same figures: a probe has accuracies and no detections, and only what is scored by COCO's rules
has intervals over images and kinds of mistakes.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.coco.figures import draw_intervals, draw_mistakes
from eval.coco.intervals import Evaluated, arm_intervals, arm_mistakes, draw_arms, interval_note, printed_intervals
from eval.data import read_data_set
from eval.differences import arm_differences, difference_note, printed_differences
from eval.figures import Curve, draw_ap_bars, draw_gallery, draw_losses
from eval.metric_names import HEADLINES
from eval.references import printed_references
from eval.results_frame import Cell, Hole, results_frame
from eval.standing import standing_note, standings
from eval.table import arm_table, cell_table, write_tables
from pcd.stage import Spec, run_stage

__all__ = ["aggregate"]


def aggregate(spec: Spec) -> dict[str, Any]:
    baselines: list[str] = spec.settings["baselines"]
    noise_ap: float = spec.settings["noise_ap"]
    records: list[dict[str, Any]] = spec.settings["cells"]
    folders = {record["cell"]: _folder(spec, record["cell"]) for record in records}
    cells = [_read_cell(folders[record["cell"]], record) for record in records]
    holes = [_hole(record) for record in spec.settings.get("holes", ())]
    by_cell = cell_table(cells)
    by_arm = arm_table(by_cell, baselines, holes)
    results_frame(cells, holes).to_csv(spec.out / "results.csv", index=False, float_format="%.4f")
    standing = standings(by_cell, [name for name in HEADLINES if name in by_cell], noise_ap)
    evaluated = [Evaluated(cell.arm, cell.protocol, folders[cell.cell]) for cell in cells]
    drawn = draw_arms(evaluated, spec.runtime["threads"], spec.activity)
    intervals = arm_intervals(drawn)
    differences = arm_differences(by_cell, spec.settings["against"], drawn)
    further, legend = {}, [standing_note(noise_ap)] if standing else []
    if len(differences):
        further["Differences between arms"] = printed_differences(differences)
        legend.append(difference_note())
        differences.to_csv(spec.out / "differences.csv", index=False, float_format="%.4f")
    if len(intervals):
        further["Intervals over images"] = printed_intervals(intervals)
        legend.append(interval_note())
        intervals.to_csv(spec.out / "intervals.csv", index=False, float_format="%.4f")
        draw_intervals(intervals, differences, spec.out / "intervals.png")
    if spec.settings["published"]:
        further["Published figures"] = printed_references(spec.settings["published"])
    mistakes = arm_mistakes(evaluated)
    if len(mistakes):
        mistakes.to_csv(spec.out / "mistakes.csv", index=False, float_format="%.4f")
        draw_mistakes(mistakes, [record["arm"] for record in records], spec.out / "mistakes.png")
    title = f"AP table of {spec.settings['benchmark']}"
    title += f" ({len(cells)} of {len(cells) + len(holes)} cells)" if holes else ""
    frames = {"intervals": intervals, "differences": differences}
    notes = [*legend, *spec.settings["notes"]]
    write_tables(spec.out, title, by_cell, by_arm, baselines, notes, holes, further, standing, frames)

    draw_ap_bars(by_cell, spec.out / "ap_by_arm.png", holes)
    _draw_losses(spec, folders)
    _draw_galleries(spec, cells, folders)
    tables = ["results.csv", "cells.csv", "arms.csv", "ap_table.json"]
    return {"cells": len(cells), "holes": len(holes), "arms": len(by_arm), "tables": tables}


def _folder(spec: Spec, cell: str) -> Path:
    probe, finetune = f"probe:{cell}", f"finetune:{cell}"
    return spec.inputs[probe if probe in spec.inputs else finetune]


def _hole(record: dict[str, Any]) -> Hole:
    return Hole(**{name: record[name] for name in ("cell", "arm", "protocol", "seed", "reason")})


def _read_cell(folder: Path, record: dict[str, Any]) -> Cell:
    result = json.loads((folder / "result.json").read_text())
    return Cell(
        cell=record["cell"],
        arm=record["arm"],
        protocol=record["protocol"],
        seed=record["seed"],
        metrics=result["metrics"],
    )


def _draw_losses(spec: Spec, folders: Mapping[str, Path]) -> None:
    records = spec.settings["cells"]
    pretrained = {record["pretrain"]: record["arm"] for record in records if record["pretrain"]}
    found: dict[str, list[Curve]] = {"pre-training": [], "fine-tuning": [], "probes": []}
    for name, arm in pretrained.items():
        found["pre-training"].append(Curve(arm, arm, spec.inputs[f"pretrain:{name}"] / "metrics.jsonl"))
    for record in records:
        cell, arm = record["cell"], record["arm"]
        kind = "probes" if f"probe:{cell}" in spec.inputs else "fine-tuning"
        found[kind].append(Curve(arm, f"{arm}.{record['protocol']}", folders[cell] / "metrics.jsonl"))
    there = {title: [curve for curve in curves if curve.file.exists()] for title, curves in found.items()}
    arms = [record["arm"] for record in records]
    draw_losses({title: curves for title, curves in there.items() if curves}, arms, spec.out / "losses.png")


def _draw_galleries(spec: Spec, cells: Sequence[Cell], folders: Mapping[str, Path]) -> None:
    """detections.png, and detections-<set>.png of each labelled set, for each arm's first cell of a protocol."""
    firsts = {(c.arm, c.protocol): c.cell for c in reversed(cells)}  # where the first seed is a hole, the next
    shown: dict[str | None, dict[str, Path]] = {}
    for record in spec.settings["cells"]:
        predictions = folders[record["cell"]] / "predictions.json"
        if firsts[record["arm"], record["protocol"]] == record["cell"] and predictions.exists():
            named = record["arm"] if len({c.protocol for c in cells}) == 1 else f"{record['arm']}\n{record['protocol']}"
            shown.setdefault(record.get("set"), {})[named] = predictions
    for name, of_set in shown.items():
        set_places = spec.runtime.get("set_places") or {}
        places = set_places.get(name) if name else spec.runtime.get("data_places")
        data = read_data_set(spec.inputs[f"data:{name}" if name else "data"], places)
        draw_gallery(data.val, of_set, spec.out / (f"detections-{name}.png" if name else "detections.png"))


if __name__ == "__main__":
    sys.exit(run_stage(aggregate))
