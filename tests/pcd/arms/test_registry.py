import pytest
from pydantic import ValidationError

from pcd.arms import ARMS, Option, options_of
from pcd.objective import Objective, load_objective
from pcd.settings import LossSettings, PretrainSettings, flat_settings, of_arm

PRETRAINED = [name for name, arm in ARMS.items() if arm.kind == "pretrain"]


@pytest.mark.parametrize("name", ARMS)
def test_an_arms_name_can_stand_in_a_cells_id(name: str) -> None:
    assert name == ARMS[name].name
    assert name.replace("-", "").isalnum()
    assert name.islower()


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_names_its_source(name: str) -> None:
    assert ARMS[name].title
    assert ARMS[name].source


@pytest.mark.parametrize("name", PRETRAINED)
def test_an_arms_objective_is_a_module_of_that_name(name: str) -> None:
    objective = load_objective(ARMS[name].objective)
    assert issubclass(objective, Objective)
    assert objective.__module__ == f"pcd.arms.{ARMS[name].objective}"


@pytest.mark.parametrize("name", PRETRAINED)
def test_an_arm_sets_what_it_says_and_leaves_the_rest(name: str) -> None:
    base = PretrainSettings(epochs=20)
    before, after = flat_settings(base), flat_settings(of_arm(base, name))
    changed = {setting: value for setting, (value, _) in after.items() if before.get(setting, (None, ""))[0] != value}
    arm = ARMS[name]
    wanted = {**arm.changes, "objective": arm.objective}
    if arm.options:
        wanted["options"] = {option: entry.value for option, entry in arm.options.items()}
    assert changed == {s: value for s, value in wanted.items() if before.get(s, (None, ""))[0] != value}


@pytest.mark.parametrize("name", PRETRAINED)
def test_an_arms_pairing_means_something_to_its_objective(name: str) -> None:
    pairing = of_arm(PretrainSettings(), name).loss.pairing
    assert pairing in load_objective(ARMS[name].objective).pairings


@pytest.mark.parametrize("option", [option for arm in ARMS.values() for option in arm.options.values()])
def test_an_option_lies_within_its_bounds_and_names_its_source(option: Option) -> None:
    assert option.least <= option.value <= option.most
    assert option.meaning
    assert "@" in option.source


def test_an_arm_that_would_be_pcd_again_is_refused() -> None:
    for name, base in (
        ("pcd-no-mhsa", PretrainSettings(attention=False)),
        ("pcd-same-view", PretrainSettings(loss=LossSettings(pairing="same"))),
    ):
        with pytest.raises(ValueError, match=f"the arm {name} is no other than pcd here"):
            of_arm(base, name)


def test_options_not_named_are_the_arms() -> None:
    assert PretrainSettings(objective="disco", options={"momentum": 0.9}).options == {
        "momentum": 0.9,
        "distillation_weight": options_of("disco")["distillation_weight"].value,
    }


def test_an_options_mark_is_the_comparators_until_it_is_changed() -> None:
    arms = of_arm(PretrainSettings(), "seed")
    assert flat_settings(arms)["options"] == ({"teacher_temperature": 1e-4}, "comparator")
    changed = PretrainSettings(objective="seed", options={"teacher_temperature": 0.1})
    assert flat_settings(changed)["options"] == ({"teacher_temperature": 0.1}, "ours")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"objective": "sed"}, 'unknown objective "sed": did you mean "seed"?'),
        ({"objective": "seed", "options": {"temperature": 1}}, 'unknown option of the objective seed "temperature"'),
        ({"options": {"momentum": 0.9}}, 'unknown option of the objective pcd "momentum"'),
        ({"objective": "disco", "options": {"momentum": 1.5}}, "momentum lies between 0 and 1, got 1.5"),
    ],
)
def test_what_is_no_objective_or_option_is_answered_in_one_line(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PretrainSettings.model_validate(settings)
    assert told in caught.value.errors()[0]["msg"]
