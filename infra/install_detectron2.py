"""Install Detectron2 0.6 without a compiler: `python infra/install_detectron2.py`.

Detectron2 publishes no wheel, and its build needs a compiler, CUDA headers and a matching torch. Mask R-CNN needs none
of what is compiled: RoIAlign and NMS come from torchvision. So the Python files of the 0.6 source archive are packed
into a pure wheel, together with a `detectron2._C` that names what is missing when somebody asks for it (deformable
convolution, rotated boxes, the C++ COCO evaluation).

The archive is refused unless its SHA-256 is the one below; only then does pip look inside.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path

ARCHIVE = "pb1-detectron2==0.6"
ARCHIVE_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
VERSION = "0.6+pure.1"

PYPROJECT = f"""\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "detectron2"
version = "{VERSION}"
description = "Detectron2 0.6, Python files only"
license = {{ text = "Apache-2.0" }}
[tool.setuptools.packages.find]
include = ["detectron2*"]
[tool.setuptools.package-data]
"detectron2.model_zoo" = ["configs/**/*.yaml", "configs/**/*.py"]
"""

MISSING_OPERATORS = '''\
"""Stands in for Detectron2's compiled operators, which this pure-Python build leaves out."""


def __getattr__(name: str) -> object:
    if name.startswith("__"):  # what the import system asks of every module
        raise AttributeError(name)
    raise RuntimeError(
        f"detectron2._C.{name} is a compiled operator, and this is the pure-Python build of Detectron2. Mask R-CNN and "
        "Faster R-CNN do not need it; deformable convolution, rotated boxes and use_fast_impl=True do. "
        "For those, build Detectron2 from its own repository."
    )
'''


class InstallError(RuntimeError):
    """What went wrong, in one line, with what to do."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Install Detectron2 0.6 as a pure-Python wheel.")
    parser.add_argument("--force", action="store_true", help="install even if the same version is there")
    parser.add_argument(
        "--sha256", default=ARCHIVE_SHA256, help="the archive's expected hash (default: the pinned one)"
    )
    arguments = parser.parse_args(argv)
    if not arguments.force and _installed_version() == VERSION:
        print(f"detectron2 {VERSION} is already installed")
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="detectron2-") as folder:
            wheel = build_wheel(Path(folder), arguments.sha256)
            _pip("install", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"detectron2 {VERSION} installed")
    return 0


def build_wheel(folder: Path, sha256: str = ARCHIVE_SHA256) -> Path:
    """Download, verify, unpack and repack; returns the wheel's path inside `folder`.

    Raises:
        InstallError: torch is missing, the archive cannot be had, or its hash is another one.
    """
    _require_torch()
    archive = _download(folder, sha256)
    source = folder / "source"
    with tarfile.open(archive) as tar:
        tar.extractall(source, filter="data")  # "data" refuses links and paths that lead outside
    root = next(source.iterdir())
    for built_by_upstream in ("setup.py", "setup.cfg", "pyproject.toml"):
        (root / built_by_upstream).unlink(missing_ok=True)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "detectron2" / "_C.py").write_text(MISSING_OPERATORS)
    _pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder), str(root))
    return next(folder.glob("detectron2-*.whl"))


def _require_torch() -> None:
    try:
        metadata.version("torch")
    except metadata.PackageNotFoundError:
        raise InstallError(
            "torch is not installed in this environment, and Detectron2's archive needs it to be read; run `make setup`"
        ) from None


def _download(folder: Path, sha256: str) -> Path:
    # The hash stands in a requirements file because pip takes hashes from nowhere else.
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{ARCHIVE} --hash=sha256:{sha256}\n")
    _pip("download", "--no-deps", "--no-build-isolation", "--no-binary=:all:", "--require-hashes",
         "--dest", str(folder), "--requirement", str(requirement))  # fmt: skip
    return next(folder.glob("pb1*.tar.gz"))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        output = done.stdout + done.stderr
        if "DO NOT MATCH THE HASHES" in output:
            raise InstallError(
                f"the archive of {ARCHIVE} has another SHA-256 than the one expected; nothing was installed. "
                "Do not install it by hand: the package index served a different file."
            )
        if "cannot declare direct URL dependencies" in output:
            raise InstallError(
                "this pip refuses the archive's metadata; run `make setup`, which installs one that does not"
            )
        last_lines = "\n  ".join(output.strip().splitlines()[-8:])
        raise InstallError(f"`pip {arguments[0]}` failed with exit code {done.returncode}:\n  {last_lines}")


def _installed_version() -> str | None:
    try:
        return metadata.version("detectron2")
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
