"""What several publishers have in common."""

from typing import Final

from pcd.layouts import ResNetLayout

__all__ = ["FACEBOOK", "NAMES_FROM_CODE", "NO_HASH", "NUMPY_SCALARS", "OPENMMLAB_LOGS", "RESNET18", "RESNET50"]

FACEBOOK: Final = "https://dl.fbaipublicfiles.com"

RESNET18: Final = ResNetLayout(block="basic", layers=(2, 2, 2, 2), channels=(64, 128, 256, 512))
RESNET50: Final = ResNetLayout(block="bottleneck", layers=(3, 4, 6, 3), channels=(64, 128, 256, 512))

NO_HASH: Final = "size and hash are not published"
NAMES_FROM_CODE: Final = "tensor names are read from the code, not from the file"

NUMPY_SCALARS: Final = ("numpy.core.multiarray.scalar", "numpy.dtype")
"""Learning rates that came out of a numpy schedule."""
OPENMMLAB_LOGS: Final = (
    *NUMPY_SCALARS,
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy.ndarray",
    "builtins.getattr",
)
"""The runner's message hub, saved along by OpenMMLab's engine (mmengine#1650, #1655)."""
