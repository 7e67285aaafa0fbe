"""A stage that evaluates a backbone in no time: its first weight. With `fail` or `wait` in its settings it does so, and
with `tell` it says meanwhile that it is there.
"""

import sys
import time
from typing import Any

from safetensors.numpy import load_file

from pcd.errors import PCDError
from pcd.stage import Spec, Stopped, run_stage


def evaluate(spec: Spec) -> dict[str, Any]:
    if spec.settings.get("fail"):
        raise PCDError("this backbone cannot be evaluated")
    while spec.settings.get("wait") and not (spec.out.parent / "go-on").exists():
        if spec.stop_requested:
            raise Stopped
        if spec.settings.get("tell"):
            spec.activity("waiting", 0, 1)
        time.sleep(0.02)
    weight = load_file(spec.inputs["backbone"] / "backbone.safetensors")["weight"]
    return {"metrics": {"bbox/AP": float(weight[0]), "bbox/APl": None}}


if __name__ == "__main__":
    sys.exit(run_stage(evaluate))
