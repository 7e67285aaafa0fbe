"""The tensors of a teacher by their canonical names, from the publisher's file or from our own conversion of it.

Canonical are `trunk.<torchvision's or timm's name>` and `head.<number in the nn.Sequential>.<name>`. Reading is strict
in both directions: what the networks need must be there in its shape, and under the entry's prefixes nothing may be
left over that the entry does not drop by name.
"""

import functools
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pcd.errors import PCDError
from pcd.heads import build_dense_head, build_vector_head
from pcd.teachers.entry import TeacherEntry
from pcd.teachers.trunks import build_trunk
from pcd.tensor_file import write_tensors

__all__ = ["build_networks", "read_converted", "read_published", "write_converted"]

_NEVER_READ_IN_EVAL: Final = "num_batches_tracked"
"""Counts steps, and is missing from files that descend from PyTorch before 0.4.1 (torchvision's first ResNets)."""


def build_networks(entry: TeacherEntry) -> tuple[nn.Module, nn.Sequential]:
    """Trunk and whole head without memory behind their tensors, until `to_empty` gives them some."""
    with torch.device("meta"):
        head = build_dense_head(entry.head) if entry.head.dense else build_vector_head(entry.head)
        return build_trunk(entry.trunk), head


def read_published(entry: TeacherEntry, path: Path) -> dict[str, Tensor]:
    """The publisher's file, unpickled in torch's safe mode. Raises PCDError on anything that is not as expected."""
    tensors = _tensors_of(entry, _unpickle_safely(path, entry.placeholders), path)
    shapes, names = _expected(entry)
    _check(tensors, {names[name]: shape for name, shape in shapes.items()}, f"{path} does not fit {entry.name}")
    return {name: tensors.get(theirs, torch.tensor(0)) for name, theirs in names.items()}


def read_converted(entry: TeacherEntry, path: Path) -> dict[str, Tensor]:
    """What `write_converted` wrote. Raises PCDError if it is missing, damaged or another teacher's."""
    try:
        with safe_open(path, framework="pt") as file:
            named = (file.metadata() or {}).get("teacher")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise PCDError(f"teacher file {path} does not exist; `pcd run` makes it") from None
    except (SafetensorError, OSError) as error:
        raise PCDError(
            f"{path} cannot be read ({_one_line(error)}); delete its stage's folder to make it anew"
        ) from None
    if named != entry.name:
        raise PCDError(f"{path} holds the teacher {named or 'of nobody'}, not {entry.name}; give the right file")
    _check(tensors, _expected(entry)[0], f"{path} does not fit {entry.name}")
    return tensors


def write_converted(entry: TeacherEntry, tensors: Mapping[str, Tensor], path: Path, source_sha256: str) -> None:
    """Write canonical tensors as safetensors, whole or not at all, with where they come from in the metadata."""
    metadata = {
        "teacher": entry.name,
        "source": entry.url or entry.obtain or "",
        "source_sha256": source_sha256,
        "licence": entry.licence,
    }
    write_tensors(path, tensors, metadata)


@functools.cache
def _expected(entry: TeacherEntry) -> tuple[dict[str, torch.Size], dict[str, str]]:
    """By canonical name: the shape of each tensor, and its name in the publisher's file."""
    trunk, head = build_networks(entry)
    shapes = {f"trunk.{name}": tensor.shape for name, tensor in trunk.state_dict().items()}
    names = {f"trunk.{name}": entry.trunk_prefix + name for name in trunk.state_dict()}
    for layer, prefix in _published_prefixes(entry, head).items():
        for name, tensor in head.get_submodule(layer).state_dict().items():
            shapes[f"head.{layer}.{name}"] = tensor.shape
            names[f"head.{layer}.{name}"] = prefix + name
    return shapes, names


def _published_prefixes(entry: TeacherEntry, head: nn.Sequential) -> dict[str, str]:
    """Number of each of the head's layers that holds tensors to what stands before them in the publisher's file."""
    layers = [number for number, layer in head.named_children() if layer.state_dict()]
    named = zip(layers, entry.head.layer_names or layers, strict=entry.head.last_norm != "external")
    prefixes = {number: f"{entry.head_prefix}{name}." for number, name in named}
    if entry.head.last_norm == "external":
        assert entry.last_norm_prefix is not None  # the registry's test says so of every entry
        prefixes[layers[-1]] = entry.last_norm_prefix
    return prefixes


class _Placeholder:
    """Takes whatever unpickling hands to an object, and does nothing with it."""

    def __init__(self, *_arguments: Any) -> None:
        pass

    def __new__(cls, *_arguments: Any) -> "_Placeholder":
        return super().__new__(cls)

    def __setstate__(self, _state: Any) -> None:
        pass


def _unpickle_safely(path: Path, placeholders: Iterable[str]) -> Any:
    """torch.load in safe mode, where each of `placeholders` is allowed, but stands for nothing."""
    try:
        with torch.serialization.safe_globals([(_Placeholder, name) for name in placeholders]):
            # What is not read of a zip file (the optimizer, other encoders) never comes into memory.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise PCDError(f"teacher file {path} does not exist; `pcd teachers fetch` brings it") from None
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error).upper():
            raise PCDError(f"{path} is no checkpoint or damaged ({_one_line(error)}); fetch it again") from None
        raise PCDError(
            f"{path} holds more than tensors and was not read, since unpickling it could run foreign code: "
            f"{_unsafe_object(error)} is not among what this teacher's publisher is known to save along; use the "
            "publisher's own file"
        ) from None
    except (EOFError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise PCDError(f"{path} is truncated or no checkpoint ({_one_line(error)}); fetch it again") from None


def _unsafe_object(error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    return named[1] if named else _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _tensors_of(entry: TeacherEntry, raw: Any, path: Path) -> dict[str, Any]:
    """What stands under the entry's prefixes, without what it drops."""
    place = f'"{entry.top_key}" with tensors' if entry.top_key else "tensors by name"
    top = raw.get(entry.top_key) if entry.top_key and isinstance(raw, Mapping) else raw
    if not isinstance(top, Mapping):
        found = f"keys {', '.join(map(str, list(raw)[:5]))}" if isinstance(raw, Mapping) else type(raw).__name__
        raise PCDError(f"{path} has no {place} (found: {found}); it is not a {entry.name} file")
    named = {str(name).removeprefix(entry.wrapper): tensor for name, tensor in top.items()}
    prefixes = tuple(p for p in (entry.trunk_prefix, entry.head_prefix, entry.last_norm_prefix) if p is not None)
    tensors = {
        name: tensor
        for name, tensor in named.items()
        if name.startswith(prefixes) and not any(fnmatchcase(name, pattern) for pattern in entry.dropped)
    }
    if not tensors:
        raise PCDError(f'{path} has no tensor under "{entry.trunk_prefix}"; it is not a {entry.name} file')
    return tensors


def _check(tensors: Mapping[str, Any], expected: Mapping[str, torch.Size], failure: str) -> None:
    missing = sorted(name for name in expected.keys() - tensors.keys() if not name.endswith(f".{_NEVER_READ_IN_EVAL}"))
    extra = sorted(tensors.keys() - expected.keys())
    if missing or extra:
        raise PCDError(f"{failure}: {_list('missing', missing)}; {_list('unexpected', extra)}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise PCDError(f"{failure}: {name} is no tensor")
        if tensor.shape != expected[name]:
            raise PCDError(f"{failure}: {name} is {tuple(tensor.shape)}, expected {tuple(expected[name])}")


def _list(what: str, names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return f"{len(names)} {what}" + (f" ({shown})" if names else "")
