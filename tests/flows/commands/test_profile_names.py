import pytest
from click.testing import CliRunner

from flows.cli import main
from flows.commands.profile_names import PROFILE_NAMES
from flows.profiles import PROFILES


def test_the_names_are_those_of_the_profiles_that_can_be_loaded() -> None:
    assert tuple(PROFILES) == PROFILE_NAMES


@pytest.mark.parametrize("command", ["run", "plan"])
def test_the_help_of_a_command_names_every_profile(command: str) -> None:
    told = " ".join(CliRunner().invoke(main, [command, "--help"]).output.split())
    assert f"PROFILE is {', '.join(PROFILES)}, or a YAML file" in told
