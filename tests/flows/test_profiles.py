from pathlib import Path

import pytest

from eval.departures import resolve
from flows.profiles import PROFILES, load_profile
from pcd.errors import PCDError


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_shipped_profile_is_valid_and_bears_its_name(name: str) -> None:
    assert load_profile(name).name == name


def test_the_paper_profile_keeps_the_released_recipe() -> None:
    pretrain = load_profile("paper").pretrain
    assert (pretrain.global_batch, pretrain.epochs, pretrain.loss.negatives) == (1024, 100, 65536)
    assert (pretrain.optimizer.name, pretrain.optimizer.learning_rate, pretrain.loss.temperature) == ("lars", 1.0, 0.2)


def test_an_override_lies_over_the_profile() -> None:
    assert load_profile("demo", ["pretrain.loss.temperature=0.3"]).pretrain.loss.temperature == 0.3
    assert load_profile("demo", ["seeds=[0, 1, 2]"]).seeds == (0, 1, 2)


def test_a_named_protocol_needs_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "named.yaml"
    path.write_text("name: mine\nprotocols: {fpn_1x: {}, c4_2x:, short: {base: fpn_1x, iterations: 5000}}\n")
    protocols = load_profile(str(path)).protocols
    assert (protocols["fpn_1x"], protocols["c4_2x"]) == (resolve("fpn_1x"), resolve("c4_2x"))
    assert protocols["short"] == resolve("fpn_1x", {"iterations": 5000})


def test_without_a_word_of_protocols_the_one_of_the_papers_is_taken_as_named() -> None:
    assert load_profile("paper").protocols == {"fpn_1x": resolve("fpn_1x")}


def test_a_protocol_is_overridden_by_its_name() -> None:
    assert load_profile("demo", ["protocols.shapes_fpn.iterations=90"]).protocols["shapes_fpn"].iterations == 90


@pytest.mark.parametrize(
    ("name", "overrides", "told"),
    [
        ("dmeo", [], 'unknown profile "dmeo": did you mean "demo"?'),
        (
            "demo",
            ["pretrain.temprature=0.1"],
            "unknown setting pretrain.temprature; did you mean pretrain.loss.temperature?",
        ),
        ("demo", ["pretrain.optimizer.learning_rat=1"], "did you mean pretrain.optimizer.learning_rate?"),
        ("demo", ["pretrain.loss.temperature=0"], "pretrain.loss.temperature: input should be greater than 0, got 0"),
        ("demo", ["pretrain.views.size=100"], "pretrain.views.size: input should be a multiple of 32, got 100"),
        ("demo", ["pretrain.epochs=many"], "pretrain.epochs: input should be a valid number"),
        ("demo", ["arms=[pdc]"], 'arms.0: unknown arm "pdc": did you mean "pcd"? valid: '),
        ("demo", ["seeds=[1, 1]"], "seeds names one twice: 1, 1"),
        ("demo", ["teacher=dmeo"], 'unknown teacher "dmeo"; valid: demo'),
        (
            "demo",
            ["pretrain.student=resnet81"],
            'pretrain.student: unknown student "resnet81": did you mean "resnet18"?',
        ),
        (
            "demo",
            ["pretrain.student=mobilenet_v3_large", "protocols={fpn_1x: {}, c4_1x: {}}"],
            'protocols.c4_1x: mask_rcnn_c4 cannot stand on "mobilenet_v3_large"; choose a student of resnet18, '
            "resnet34, resnet50, or a protocol with an FPN",
        ),
        ("demo", ["protocols.c4-1x={}"], 'protocols: unknown protocol "c4-1x": did you mean "c4_1x"?'),
        (
            "demo",
            ["watch.protocol=shapes_fpn", "watch.changes={iteration: 3}"],
            "watch.changes: watch has no setting iteration; did you mean iterations?",
        ),
        ("demo", ["watch.protocol=shapes_fpn", "watch.changes={a.b: 3}"], "watch.changes: watch has no setting a.b"),
        ("demo", ["watch.protocol=shapes_fpn", "watch.changes={set: x}"], "the labelled set is the protocol's"),
        ("demo", ["watch.protocol=shapes_fpn", "arms=[random]"], "watch: no arm here is pre-trained"),
        (
            "demo",
            ['overrides={"pretrain:*": {objective: seed}}'],
            "objective says which arm or protocol it is; name another one instead",
        ),
        ("demo", ["runtime.processes=3"], "a batch of 8 does not divide among 3 processes; choose another number in"),
        ("demo", ["protocols.mine.base=fpn1x"], 'protocols: unknown protocol "fpn1x": did you mean "fpn_1x"?'),
        ("demo", ["protocols.c4_1x.fpn_channels=64"], "protocols.c4_1x: fpn_channels: mask_rcnn_c4 has no such part"),
        ("demo", ["protocols.fpn_1x.world_size=0"], "world_size is the number of processes to scale the protocol to"),
        ("demo", ["pretrain.optimizer.warmup_epochs=9"], "warm-up takes 9 of 2 epochs"),
        ("demo", ["protocols.shapes_fpn.warmup_iterations=5000"], "warm-up takes 5000"),
        ("demo", ["epochs"], '"epochs" sets nothing; write SETTING=VALUE'),
        ("demo", ["name.first=a"], "name is a value, not a group of settings"),
        ("demo", ["seeds=[1"], "is not a YAML value"),
        ("missing.yaml", [], "cannot read profile missing.yaml (No such file or directory)"),
    ],
)
def test_bad_input_gets_one_line_that_names_it(name: str, overrides: list[str], told: str) -> None:
    with pytest.raises(PCDError) as caught:
        load_profile(name, overrides)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(PCDError, match="holds no settings"):
        load_profile(str(path))


def test_a_profile_of_the_users_own_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: own\nteacher: demo\n")
    assert load_profile(str(path)).name == "own"
