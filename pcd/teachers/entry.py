"""What the registry knows of one published file of weights, and of one teacher."""

from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal
from urllib.parse import unquote, urlparse

from pcd.imagenet import IMAGENET_MEAN, IMAGENET_STD
from pcd.layouts import HeadLayout, TrunkLayout

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "PublishedFile", "PublishedHash", "TeacherEntry"]

_FULL_LENGTH: Final = {"sha256": 64, "md5": 32}


@dataclass(frozen=True, slots=True)
class PublishedHash:
    """A file's hash, or its first digits, as a source gives it."""

    algorithm: Literal["sha256", "md5"]
    hex_prefix: str

    @property
    def is_whole(self) -> bool:
        return len(self.hex_prefix) == _FULL_LENGTH[self.algorithm]

    def __str__(self) -> str:
        return f"{self.algorithm} {self.hex_prefix}{'' if self.is_whole else '…'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """Weights that somebody serves: where they are, how they are known, and what they may be used for."""

    name: str
    title: str
    url: str | None
    """None: nobody serves it at a plain address; `obtain` says where it is, and the user brings it with `--file`."""
    obtain: str | None = None
    published_hash: PublishedHash | None
    """The publisher's own; a file that differs is refused. None, or a few digits only: the whole SHA-256 is pinned at
    the first fetch, and enforced from then on."""
    reported_hash: PublishedHash | None = None
    """A third party's word; a file that differs is remarked on, and not refused."""
    size_bytes: int | None = None
    """Exact, and enforced."""
    megabytes: float | None = None
    """About, in 1e6 bytes: where the publisher states no size, the least that the tensors take in fp32."""
    licence: str
    noncommercial: bool
    accuracy: str
    """Published, with the branch it measures."""
    source: str
    unverified: tuple[str, ...] = ()
    """Facts that stand here without having been seen in the file itself."""

    @property
    def file_name(self) -> str:
        """The publisher's, or our own for a file that the user brings."""
        return unquote(PurePosixPath(urlparse(self.url).path).name) if self.url else f"{self.name}.pth"

    def describe(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherEntry(PublishedFile):
    """A published checkpoint, and how it is laid out."""

    top_key: str | None
    """Key of the file's dictionary under which the tensors are; None: they are its own entries."""
    wrapper: str = ""
    """Taken off the front of all names where the file has it: sources differ on whether it does."""
    trunk_prefix: str
    """What stands before the trunk's tensor names."""
    head_prefix: str | None
    """What stands before the head's; None: there is no head in the file."""
    last_norm_prefix: str | None = None
    """What stands before the tensors of a head's `external` last norm."""
    dropped: tuple[str, ...] = ()
    """Patterns (* for any text) of names that may stand under these prefixes without being read. Anything else there
    makes the file another one than we think, and is an error."""
    placeholders: tuple[str, ...] = ()
    """Full names of the objects besides tensors that the publisher saves along. They are never made, let alone run:
    an inert stand-in takes their place while the file is read, and is then forgotten."""
    trunk: TrunkLayout
    head: HeadLayout
    student_hidden: tuple[int, ...] | None = None
    """Hidden widths of the student's MLPs, where the released code does not take them from the head."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    """What the publisher normalised with, for the record: views are normalised with ImageNet's for every teacher, as
    in the released code."""

    def projector_widths(self, channels: int) -> tuple[int, ...]:
        """Of the student's projector, from its backbone's `channels`: [c, hidden …, out], the teacher's head's own.

        [code] (allo-rene/pcd@6b0ad4d: pcd/teacher_model/): MoCo v3 with either trunk (its ViTs' head has two hidden
        layers, their student's one) and BYOL [c, 4096, 256]; SwAV [c, 2048, 128]; Barlow Twins [c, 8192, 8192, 8192].
        [ours]: all others by the same rule, and one hidden layer of the output's width where the teacher has none.
        """
        *hidden, out = self._student_widths()
        return (channels, *hidden, out)

    def predictor_widths(self) -> tuple[int, ...]:
        """Of the student's predictor: [out, hidden …, out]; marks as for the projector."""
        *hidden, out = self._student_widths()
        return (out, *hidden, out)

    def _student_widths(self) -> tuple[int, ...]:
        out = self.head.widths[-1]
        hidden = self.head.widths[1:-1] if self.student_hidden is None else self.student_hidden
        return (*(hidden or (out,)), out)
