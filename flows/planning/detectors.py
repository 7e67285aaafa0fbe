"""Whether the detectors of a benchmark can stand on its student and learn from their sets: before anything runs."""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from eval.departures import other_share
from eval.finetune_settings import C4_STUDENTS, FinetuneSettings
from pcd.settings import Settings

__all__ = ["check_detectors", "shares_that_differ"]


def check_detectors(
    detectors: Mapping[str, BaseModel], students: Iterable[str], kinds: Mapping[str | None, str], processes: int
) -> None:
    """Raises ValueError on a detector that a student, its set or the number of processes does not fit.

    Args:
        detectors: where the user finds their settings (protocols.fpn_1x) to these; what is no detector is passed over.
        kinds: name of each labelled set to its kind (coco, voc, …); under None that of the benchmark's `data`.
    """
    for where, settings in detectors.items():
        if not isinstance(settings, FinetuneSettings):
            continue
        strange = [student for student in students if student not in C4_STUDENTS]
        if strange and not settings.has_pyramid:
            raise ValueError(
                f'{where}: {settings.architecture} cannot stand on "{strange[0]}"; choose a student of '
                f"{', '.join(C4_STUDENTS)}, or a protocol with an FPN"
            )
        if settings.batch % processes:
            raise ValueError(
                f"{where}: a batch of {settings.batch} does not divide among {processes} processes; choose another "
                f"number in runtime.processes, or scale the protocol to it by its world_size={processes}"
            )
        kind = kinds.get(settings.set)
        if settings.score_by not in ("coco", kind):
            judged = f'the set "{settings.set}"' if settings.set else "the benchmark's `data`"
            raise ValueError(
                f"{where}: score_by {settings.score_by} judges a set of that kind, and {judged} is of kind {kind}; "
                "set score_by=coco, or name another set"
            )
        if settings.has_masks and kind == "voc":
            raise ValueError(
                f"{where}: {settings.architecture} needs masks, and VOC has boxes alone; set the protocol's "
                f"architecture to {settings.architecture.replace('mask', 'faster')}"
            )


def shares_that_differ(protocols: Mapping[str, BaseModel], processes: int) -> list[str]:
    """A line for each detector whose images are shared among another number of processes than its protocol means."""
    shares = {name: other_share(s, processes) for name, s in protocols.items() if isinstance(s, Settings)}
    return [f"protocols.{name}: {line}" for name, line in shares.items() if line]
