"""A benchmark: what is compared with what, and on which machine. One frozen model, which Prefect shows as a form."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)  # fmt: skip

from eval.finetune_settings import FinetuneSettings
from eval.probes.settings import PROBES, KnnSettings, LinearSettings, LowShotSettings
from eval.profile_protocols import with_named_protocols
from eval.protocols import PROTOCOLS
from eval.settings import DataSettings, LabelledSet, ShapesData
from flows.planning.detectors import check_detectors
from flows.planning.labelled_sets import check_sets
from flows.planning.matrix import PRETRAINED_ARMS, Cell, cells_of, changed, check_overrides, nearest
from pcd.arms import ARMS
from pcd.arms.weights import SUPERVISED_WEIGHTS
from pcd.errors import PCDError, unknown_name
from pcd.layouts import ResNetLayout
from pcd.settings import AbsolutePath, PretrainSettings, Settings, StageRuntime, of_arm, setting, with_changes
from pcd.teachers.registry import TEACHERS

__all__ = ["ArmName", "Benchmark", "ExtraCell", "ProtocolSettings", "Runtime", "Watch"]


def _known_arm(name: str) -> str:
    if name not in ARMS:
        raise ValueError(unknown_name("arm", name, ARMS))
    return name


ArmName = Annotated[str, AfterValidator(_known_arm), WithJsonSchema({"type": "string", "enum": list(ARMS)})]
"""How a backbone came to be: see pcd.arms."""

ReadableName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _kind_of(protocol: Any) -> str:
    if isinstance(protocol, Mapping):
        return str(protocol.get("kind", "detector"))
    return str(getattr(protocol, "kind", "detector"))


ProtocolSettings = Annotated[
    Annotated[FinetuneSettings, Tag("detector")]
    | Annotated[LinearSettings, Tag("linear")]
    | Annotated[KnnSettings, Tag("knn")]
    | Annotated[LowShotSettings, Tag("low_shot")],
    Discriminator(
        _kind_of,
        custom_error_type="unknown_kind",
        custom_error_message=f"unknown kind of protocol; valid: detector, {', '.join(PROBES)}",
    ),
]


class Runtime(StageRuntime):
    """How a machine runs it all. Nothing here changes a result, so nothing here is part of a stage's key."""

    processes: int = Field(1, ge=1, description="ranks of a training stage on each machine, one per GPU")
    nodes: int = Field(1, ge=1, description="machines that a training stage spans; each starts the printed command")
    rendezvous: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+:[0-9]+$")] | None = Field(
        None, description="HOST:PORT of the first machine, where the others find it; needed for several machines"
    )
    retries: int = Field(1, ge=0, description="how often a stage that failed is tried again, from its checkpoint")
    stop_seconds: float = Field(60, gt=0, description="time a stage gets to write a checkpoint before it is killed")
    stall_seconds: float = Field(
        1800, gt=0, description="a stage without a sign of progress for so long is stopped, and counts as failed"
    )
    parallel: int = Field(1, ge=1, description="stages that run at once, each on devices of its own")
    register_students: bool = Field(
        True, description="put the best student of each pre-trained arm into MLflow's model registry"
    )

    @model_validator(mode="after")
    def _machines_can_meet(self) -> "Runtime":
        if self.nodes > 1 and self.rendezvous is None:
            raise ValueError("several nodes need runtime.rendezvous, HOST:PORT of the first machine")
        return self


class ExtraCell(Settings):
    """A cell beyond the product of the axes."""

    arm: ArmName = Field(description="how its backbone came to be; may be one that `arms` does not name")
    protocol: ReadableName = Field(description="one of `protocols`")
    seed: Seed = Field(description="may be one that `seeds` does not name")


class Watch(Settings):
    """What each student is worth while it is pre-trained: snapshots of it, evaluated beside the training."""

    every_epochs: float = Field(10, gt=0, description="epochs between two snapshots that are evaluated")
    protocol: ReadableName = Field(description="the one of `protocols` that evaluates them")
    changes: dict[str, JsonValue] = Field(
        {}, description="dotted settings of that protocol and their values, such as fewer iterations"
    )


class Benchmark(Settings):
    """Arms x protocols x seeds on one data set with one teacher."""

    name: ReadableName = Field(description="names the benchmark in MLflow and Prefect")
    arms: tuple[ArmName, ...] = Field(
        ("pcd", "random"), min_length=1, description=f"how the backbones came to be: {', '.join(ARMS)}"
    )
    baseline: ArmName = Field("random", description="the arm that differences refer to")
    protocols: dict[ReadableName, ProtocolSettings] = Field(
        with_named_protocols({"fpn_1x": {}}),
        description=f"name to settings of a detector or a probe; {', '.join(PROTOCOLS)} are the field's, and may be "
        "the `base` of others; none ({}): pre-train alone",
    )
    seeds: tuple[Seed, ...] = Field(
        (0,), min_length=1, description="each arm is pre-trained and fine-tuned once per seed"
    )
    exclude: tuple[str, ...] = Field(
        (),
        description="cells of the product that are left out, by patterns on their ids arm.protocol.seedN, such as "
        "random.*.seed2",
    )
    include: tuple[ExtraCell, ...] = Field((), description="cells beyond the product: arm, protocol and seed of each")
    overrides: dict[str, dict[str, JsonValue]] = Field(
        {},
        description="departures of single stages: a pattern on stage ids (pretrain:arm.seedN, "
        "finetune:arm.protocol.seedN or probe:…) to dotted settings of that stage and their values; named under the "
        "table",
    )
    watch: Watch | None = Field(
        None,
        description="evaluate snapshots of the students while they are pre-trained; on a device of its own if one is "
        "free (runtime.parallel on the CPU), else afterwards",
    )
    teacher: str = setting("mocov3_r50_1000", "name in the teacher registry", "ours")
    teacher_file: AbsolutePath | None = Field(
        None,
        description="the teacher's file on this machine, for one that is served nowhere; its content is in the key",
    )
    supervised_file: AbsolutePath | None = Field(
        None,
        description="the file of the arm supervised on this machine: torchvision's, or weights of your own, whose "
        "content is then in the key",
    )
    data: DataSettings = Field(
        default=ShapesData(), description="what is pre-trained on, and the labelled set of protocols that name no other"
    )
    sets: dict[ReadableName, LabelledSet] = Field(
        {},
        description="further labelled sets by name, for protocols to name in `set`: kind coco, voc, cityscapes or "
        "classes, and where it lies",
    )
    pretrain: PretrainSettings = PretrainSettings()
    noise_ap: float = setting(
        0.3,
        "difference of AP, per cent, between two runs of one setting that passes for chance, in `pcd rerun`, and in "
        "the table (~) and `pcd compare` where an arm has one seed: 0.3 is a word on COCO (facebookresearch/moco#39), "
        "small sets move more (facebookresearch/detectron2#4260: about 2); a judgement, which changes no AP",
        "ours",
        ge=0,
    )
    runtime: Runtime = Runtime()

    @field_validator("protocols", mode="before")
    @classmethod
    def _take_the_named_protocols(cls, raw: Any) -> Any:
        return with_named_protocols(raw) if isinstance(raw, Mapping) else raw

    @model_validator(mode="after")
    def _no_doubles_and_a_known_teacher(self) -> "Benchmark":
        for name, values in (("arms", self.arms), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice: {', '.join(map(str, values))}")
        if self.teacher not in TEACHERS:
            raise ValueError(f'unknown teacher "{self.teacher}"; valid: {", ".join(TEACHERS)}')
        return self

    @model_validator(mode="after")
    def _matrix_is_sound(self) -> "Benchmark":
        if not self.protocols and not (PRETRAINED_ARMS & set(self.arms)):
            raise ValueError("without protocols and without an arm that is pre-trained there is nothing to do")
        if self.pretrain.objective != "pcd" or self.pretrain.options:
            raise ValueError("pretrain.objective and pretrain.options are the arms' to say: name an arm instead")
        settings = self.stage_settings()
        check_overrides(self.overrides, settings)
        return self

    @model_validator(mode="after")
    def _watch_is_sound(self) -> "Benchmark":
        if self.watch:
            if self.watch.protocol not in self.protocols:
                name = self.watch.protocol
                raise ValueError(f'watch: unknown protocol "{name}"{nearest(name, self.protocols)}')
            if not any(cell.pretrain for cell in self.cells):
                raise ValueError("watch: no arm here is pre-trained, so there is nothing to watch")
            if "set" in self.watch.changes:
                raise ValueError("watch.changes: the labelled set is the protocol's; name another protocol")
            if self.watch.changes:
                protocol = self.protocols[self.watch.protocol]
                try:
                    check_overrides({"watch": self.watch.changes}, {"watch": protocol})
                except ValueError as error:
                    told = str(error).replace('overrides "watch" of watch', "watch.changes")
                    raise ValueError(told.replace('overrides "watch"', "watch.changes")) from None
        return self

    @model_validator(mode="after")
    def _sets_fit_the_protocols(self) -> "Benchmark":
        check_sets(self.protocols, self.data, self.sets, self.overrides)
        return self

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order in which they are run and shown."""
        extra = [Cell(cell.arm, cell.protocol, cell.seed) for cell in self.include]
        return cells_of(self.arms, list(self.protocols), self.seeds, self.exclude, extra)

    def stage_settings(self) -> dict[str, BaseModel]:
        """Stage id to the settings that `overrides` may change, before they do."""
        settings: dict[str, BaseModel] = {}
        for cell in self.cells:
            if cell.pretrain:
                settings[f"pretrain:{cell.pretrain}"] = of_arm(self.pretrain, cell.arm)
            if cell.protocol:
                settings[self.stage_of(cell)] = self.protocols[cell.protocol]
        return settings

    def stage_of(self, cell: Cell) -> str:
        """Id of the stage that gives a cell its figures: finetune:<cell> or, by a probe, probe:<cell>.

        Of a cell without a protocol, its pre-training's.
        """
        if cell.protocol is None:
            return f"pretrain:{cell.pretrain}"
        return f"{'probe' if self.protocols[cell.protocol].kind in PROBES else 'finetune'}:{cell.id}"

    @model_validator(mode="after")
    def _detectors_fit_student_and_sets(self) -> "Benchmark":
        kinds: dict[str | None, str] = {name: labelled.kind for name, labelled in self.sets.items()}
        processes = self.runtime.processes * self.runtime.nodes
        kinds[None], students = self.data.kind, self._students()
        named = {f"protocols.{name}": protocol for name, protocol in self.protocols.items()}
        check_detectors(named, students, kinds, processes)
        check_detectors(self._overridden_detectors(), students, kinds, processes)
        if self.watch:  # its evaluations are of one process each
            watching = with_changes(self.protocols[self.watch.protocol], self.watch.changes)
            check_detectors({"watch.changes": watching}, students, kinds, processes=1)
        return self

    def _overridden_detectors(self) -> dict[str, BaseModel]:
        detectors = {stage: s for stage, s in self.stage_settings().items() if isinstance(s, FinetuneSettings)}
        return {
            f"overrides of {stage}": FinetuneSettings.model_validate(changed(settings, self.overrides, stage))
            for stage, settings in detectors.items()
            if any(fnmatchcase(stage, pattern) for pattern in self.overrides)
        }

    def _students(self) -> list[str]:
        try:
            return list(dict.fromkeys(self.student_of(cell.arm) for cell in self.cells))
        except PCDError as error:
            raise ValueError(error) from None

    def student_of(self, arm: str) -> str:
        """The network behind the arm's backbone. Raises PCDError for a teacher whose trunk is no student."""
        if arm != "teacher":
            return self.pretrain.student
        trunk = TEACHERS[self.teacher].trunk
        if not isinstance(trunk, ResNetLayout):
            raise PCDError(
                f"the arm teacher takes a ResNet, whose maps have strides 4 to 32; {self.teacher} is a vision "
                "transformer: leave the arm out, or choose another teacher"
            )
        return trunk.student_name

    @model_validator(mode="after")
    def _arms_mean_something_here(self) -> "Benchmark":
        arms = {cell.arm for cell in self.cells}
        head = TEACHERS[self.teacher].head
        if "pcd-last-bn" in arms and head.last_norm == "none":
            raise ValueError(
                f"the arm pcd-last-bn is no other than pcd: the head of {self.teacher} ends in no BatchNorm"
            )
        if "pcd-no-adaptor" in arms and (len(head.widths) < 3 or head.dense):
            raise ValueError(
                f"the arm pcd-no-adaptor is no other than pcd: the head of {self.teacher} has no activation to gate"
            )
        if "supervised" in arms and self.supervised_file is None and self.pretrain.student not in SUPERVISED_WEIGHTS:
            raise ValueError(
                f'no supervised weights of "{self.pretrain.student}" are known; set supervised_file to your own, '
                f"or choose one of {', '.join(SUPERVISED_WEIGHTS)}"
            )
        return self
