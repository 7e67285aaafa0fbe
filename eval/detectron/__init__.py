"""The adapter to Detectron2: the only package that imports it. Everything outside sees plain data and paths.

Import it late (`eval.finetune` does): Detectron2 takes seconds, and may be missing.
"""

import importlib.util
import warnings

import PIL.Image

from pcd.errors import PCDError

if importlib.util.find_spec("detectron2") is None:
    raise PCDError("Detectron2 is not installed in this environment; run `make setup` (infra/install_detectron2.py)")

# Detectron2 0.6 still uses a name that Pillow 10 removed.
PIL.Image.LINEAR = PIL.Image.BILINEAR  # type: ignore[attr-defined]
# What its imports warn of is theirs to mend, and would bury our own messages.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message=".*torch.meshgrid.*indexing argument")
