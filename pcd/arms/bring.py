"""The stage of an arm whose backbone is made elsewhere: `python -m pcd.arms.bring SPEC`.

`settings.arm` is `teacher`, whose trunk lies in `inputs.teacher`, or `supervised`, whose file is fetched and verified
as a teacher's is, or is the user's own (`runtime.supervised_file`). Leaves backbone.safetensors as a pre-training does.
"""

import hashlib
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pcd.arms.weights import SUPERVISED_WEIGHTS
from pcd.errors import PCDError
from pcd.export import DETECTRON2_RESNETS, export_backbone, export_for_detectron2, metadata_of
from pcd.stage import Spec, Stopped, run_stage
from pcd.students import build_student
from pcd.teachers import TEACHERS
from pcd.teachers.fetch import fetch_teacher
from pcd.teachers.pins import is_known_file
from pcd.teachers.tensors import read_converted

__all__ = ["bring_backbone"]

_CLASSIFIERS: Final = ("fc.", "classifier.")
_COUNTER: Final = ".num_batches_tracked"
"""Missing from files that descend from PyTorch before 0.4.1, and read by nothing in eval mode."""


def bring_backbone(spec: Spec) -> dict[str, Any]:
    """Every tensor of the student's backbone has to be in the file, and nothing else but a classifier."""
    spec.metrics.drop_after(0)
    name: str = spec.settings["student"]
    backbone = build_student(name)
    if spec.settings["arm"] == "teacher":
        tensors, told = _teachers_trunk(spec)
    else:
        tensors, told = _supervised(spec, name)
    matched = _load(backbone, tensors, told["source"])
    metadata = {"student": name, "objective": spec.settings["arm"]}
    export_backbone(backbone, spec.out / "backbone.safetensors", metadata)
    if name in DETECTRON2_RESNETS:
        export_for_detectron2(backbone, spec.out / "backbone_detectron2.pth")
    print(f"{matched} tensors of {told['source']} are the backbone of {name}")
    return told | {"matched_tensors": matched}


def _teachers_trunk(spec: Spec) -> tuple[dict[str, Tensor], dict[str, Any]]:
    entry = TEACHERS[spec.settings["teacher"]]
    named = read_converted(entry, spec.inputs["teacher"] / "teacher.safetensors")
    trunk = {name.removeprefix("trunk."): tensor for name, tensor in named.items() if name.startswith("trunk.")}
    told = {"source": f"teacher {entry.name}", "licence": entry.licence, "noncommercial": entry.noncommercial}
    return trunk, told


def _supervised(spec: Spec, student: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    home, own = Path(spec.runtime["home"]), spec.runtime.get("supervised_file")
    weights = SUPERVISED_WEIGHTS.get(student)
    if own is not None:
        sha256 = _sha256(Path(own))
        if weights is None or not is_known_file(weights, sha256, home):
            return _read(Path(own), student), {
                "source": own, "sha256": sha256, "hash_was_published": False,
                "licence": "the user's own file", "noncommercial": None,
            }  # fmt: skip
    if weights is None:
        known = ", ".join(SUPERVISED_WEIGHTS)
        raise PCDError(f"no supervised weights of {student} are known (of {known}); set supervised_file to your own")

    def progress(done: int, total: int) -> None:
        spec.metrics.log(done, total)
        if spec.stop_requested:
            raise Stopped

    mirror = spec.runtime.get("teacher_mirror")
    fetched = fetch_teacher(
        weights, home, file=Path(own) if own else None, mirror=Path(mirror) if mirror else None, progress=progress
    )
    return _read(fetched.path, student), {
        "source": fetched.source, "sha256": fetched.sha256, "hash_was_published": fetched.was_published,
        "licence": weights.licence, "noncommercial": weights.noncommercial,
    }  # fmt: skip


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PCDError(f"supervised_file {path} cannot be read ({error.strerror}); give a file of weights") from None


def _read(path: Path, student: str) -> dict[str, Tensor]:
    """Tensors by name, in safe mode. Raises PCDError on anything else, and on an export of another arm or student."""
    told: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            raw, told = load_file(path), metadata_of(path)
        else:
            raw = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, EOFError, OSError, RuntimeError, ValueError, KeyError) as error:
        first = " ".join(str(error).split())[:160] or type(error).__name__
        raise PCDError(f"{path} is no file of weights, or damaged ({first}); give torchvision's or your own") from None
    for name, wanted in (("objective", "supervised"), ("student", student)):
        if told.get(name, wanted) != wanted:
            raise PCDError(f"{path} says that its {name} is {told[name]}, not {wanted}; give torchvision's or your own")
    if not isinstance(raw, Mapping) or not raw or not all(isinstance(tensor, Tensor) for tensor in raw.values()):
        raise PCDError(f"{path} does not hold tensors by name alone; save the network's state_dict by itself")
    return dict(raw)


def _load(backbone: nn.Module, tensors: Mapping[str, Tensor], source: str) -> int:
    """Strict in both directions, less the classifier; returns how many tensors matched."""
    own = backbone.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if name in own or not name.startswith(_CLASSIFIERS)}
    missing = sorted(name for name in own.keys() - given.keys() if not name.endswith(_COUNTER))
    extra = sorted(given.keys() - own.keys())
    wrong = sorted(name for name in own.keys() & given.keys() if own[name].shape != given[name].shape)
    if missing or extra or wrong:
        raise PCDError(
            f"{source} does not fit the student: {len(missing)} tensors missing, {len(extra)} left over, {len(wrong)} "
            f"of another shape (first: {[*missing, *extra, *wrong][0]}); are these weights another network's?"
        )
    broken = [name for name, tensor in given.items() if not tensor.isfinite().all()]
    if broken:
        raise PCDError(f"{source} has numbers that are not finite (first: {broken[0]}); give another file")
    backbone.load_state_dict(own | given, strict=True)
    return len(given)


if __name__ == "__main__":
    sys.exit(run_stage(bring_backbone))
