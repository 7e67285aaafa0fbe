"""The backbone as it was after some epochs: for whoever watches what it is worth while training goes on.

<out>/snapshots/epoch-0010.00/backbone.safetensors

Who only reads them needs no torch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import nn

__all__ = ["list_snapshots", "write_snapshot"]

_FOLDER: Final = "snapshots"
_PREFIX: Final = "epoch-"


def write_snapshot(backbone: "nn.Module", out: Path, epoch: float, metadata: dict[str, str]) -> None:
    """Leave the whole backbone, or nothing; one that is there already is replaced by its equal."""
    from pcd.export import export_backbone

    folder = out / _FOLDER / f"{_PREFIX}{epoch:07.2f}"
    folder.mkdir(parents=True, exist_ok=True)
    export_backbone(backbone, folder / "backbone.safetensors", {"epoch": f"{epoch:g}", **metadata})


def list_snapshots(out: Path) -> Iterator[tuple[float, Path]]:
    """Epoch, and the folder with backbone.safetensors, of every snapshot that is whole; in the order of time."""
    for file in sorted((out / _FOLDER).glob(f"{_PREFIX}*/backbone.safetensors")):
        yield float(file.parent.name.removeprefix(_PREFIX)), file.parent
