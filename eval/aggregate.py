"""The last stage: from the cells' results to the AP table and its figures: `python -m eval.aggregate SPEC`.

`settings.cells` lists the cells as {cell, arm, protocol, seed, pretrain}; the folder of a cell is the input
`finetune:<cell>`, and that of its pre-training `pretrain:<pretrain>` if it had one. `settings.holes` lists those that
should be there and are not: the same, and the `reason`.
"""

import json
import sys
from typing import Any

from eval.data import read_data_set
from eval.figures import draw_ap_bars, draw_gallery, draw_losses
from eval.table import Cell, Hole, arm_table, cell_table, write_tables
from pcd.stage import Spec, run_stage

__all__ = ["aggregate"]


def aggregate(spec: Spec) -> dict[str, Any]:
    baseline: str = spec.settings["baseline"]
    cells = [_read_cell(spec, record) for record in spec.settings["cells"]]
    holes = [_hole(record) for record in spec.settings.get("holes", ())]
    by_cell = cell_table(cells)
    by_arm = arm_table(by_cell, baseline, holes)
    title = f"AP table of {spec.settings['benchmark']}"
    title += f" ({len(cells)} of {len(cells) + len(holes)} cells)" if holes else ""
    write_tables(spec.out, title, by_cell, by_arm, baseline, spec.settings["notes"], holes)

    draw_ap_bars(by_cell, spec.out / "ap_by_arm.png", holes)
    curves = {"Mask R-CNN fine-tuning": {c.cell: spec.inputs[f"finetune:{c.cell}"] / "metrics.jsonl" for c in cells}}
    pretrained = {r["pretrain"] for r in spec.settings["cells"] if r["pretrain"]}
    if pretrained:
        files = {name: spec.inputs[f"pretrain:{name}"] / "metrics.jsonl" for name in sorted(pretrained)}
        curves = {"PCD pre-training": files} | curves
    draw_losses(curves, spec.out / "losses.png")
    firsts = {(c.arm, c.protocol): c for c in reversed(cells)}  # where the first seed is a hole, the next
    shown = [c for c in cells if firsts[c.arm, c.protocol] is c]
    predictions = {c.cell: spec.inputs[f"finetune:{c.cell}"] / "predictions.json" for c in shown}
    data = read_data_set(spec.inputs["data"], spec.runtime.get("data_places"))
    draw_gallery(data.val, predictions, spec.out / "detections.png")
    tables = ["cells.csv", "arms.csv", "ap_table.json"]
    return {"cells": len(cells), "holes": len(holes), "arms": len(by_arm), "tables": tables}


def _hole(record: dict[str, Any]) -> Hole:
    return Hole(**{name: record[name] for name in ("cell", "arm", "protocol", "seed", "reason")})


def _read_cell(spec: Spec, record: dict[str, Any]) -> Cell:
    result = json.loads((spec.inputs[f"finetune:{record['cell']}"] / "result.json").read_text())
    return Cell(
        cell=record["cell"],
        arm=record["arm"],
        protocol=record["protocol"],
        seed=record["seed"],
        metrics=result["metrics"],
    )


if __name__ == "__main__":
    sys.exit(run_stage(aggregate))
