"""What a result was computed with: versions, machine, source."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

__all__ = ["brief", "describe_environment", "processor"]

_PACKAGES: Final = (
    *("torch", "torchvision", "timm", "detectron2", "numpy", "pandas", "pillow", "pycocotools", "safetensors"),
    *("faster-coco-eval", "webdataset", "prefect", "mlflow"),
)
_ROOT: Final = Path(__file__).parent.parent
_MOST_CHARACTERS: Final = 1_000_000


def describe_environment() -> dict[str, Any]:
    """Plain data, without anything secret: no environment variables, no user or host name.

    `git_diff` is what stands in the tracked files and not in the commit; untracked files are told by their names.
    """
    lock = _ROOT / "requirements.lock"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpus": _gpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "all_packages": sorted({f"{d.name}=={d.version}" for d in metadata.distributions()}),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(status := _git("status", "--porcelain")),
        "git_diff": f"{status}\n\n{_git('diff', 'HEAD') or ''}"[:_MOST_CHARACTERS] if status else "",
    }


def brief(environment: dict[str, Any]) -> dict[str, Any]:
    """What every stage's manifest can bear; the rest is told once, with the benchmark."""
    return {name: value for name, value in environment.items() if name not in ("git_diff", "all_packages")}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    """By the driver's own tool, so that torch, which takes seconds, is not imported."""
    return (_output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader") or "").splitlines()


def _git(*arguments: str) -> str | None:
    return _output("git", "-C", str(_ROOT), *arguments)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
