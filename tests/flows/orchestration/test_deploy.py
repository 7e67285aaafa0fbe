"""What `pcd deploy` understands and refuses, and the prefect.yaml beside it; a real server is in test_schedules."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.orchestration.deploy import parse_interval, schedule_of
from flows.orchestration.notify import parse_channel
from flows.profiles import PROFILES, load_profile, validate
from pcd.errors import PCDError
from tests.conftest import ROOT, Pcd

SECRET = "hooks.example.org/T0/very-secret"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("2w", 1209600)]
)
def test_an_interval_is_a_number_with_a_unit(text: str, seconds: int) -> None:
    assert parse_interval(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "0h", "-1h", "1.5h", "12", "5x", "²h"])
def test_another_interval_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="an interval is a number with one of"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ({"cron": "every day"}, "cron"),
        ({"rrule": "DAILY"}, "RRule"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Nowhere"}, "Europe/Nowhere"),
    ],
)
def test_a_schedule_that_prefect_does_not_understand_is_told_in_one_line(when: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        schedule_of(**{"cron": None, "interval": None, "rrule": None, "timezone": None, **when})
    assert len(str(caught.value).splitlines()) == 1


def test_the_times_of_an_interval_do_not_move_with_the_moment_of_deploying() -> None:
    first, second = (schedule_of(None, "12h", None, None) for _ in range(2))
    assert first == second


def test_no_schedule_is_none() -> None:
    assert schedule_of(None, None, None, None) is None


def test_a_webhook_may_stand_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"https://{SECRET}")
    assert parse_channel("slack=env:HOOK") == parse_channel(f"slack=https://{SECRET}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("webhok=https://x", 'did you mean "webhook"'),
        (f"webhook={SECRET}", "takes the address of a webhook"),
        ("slack=env:NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE is not set"),
        ("email=me@example.org", "takes FROM,TO"),
        ("email=a@example.org,b@example.org", "SENDGRID_API_KEY"),
    ],
)
def test_a_wrong_channel_is_told_without_its_secret(text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SENDGRID_API_KEY", raising=False)
    with pytest.raises(PCDError, match=told) as caught:
        parse_channel(text)
    assert SECRET not in str(caught.value)


def test_a_channel_does_not_show_its_secret() -> None:
    assert SECRET not in repr(parse_channel(f"webhook=https://{SECRET}"))


def _deployments() -> dict[str, dict[str, Any]]:
    file = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    return {deployment["name"]: deployment for deployment in file["deployments"]}


@pytest.mark.parametrize("profile", PROFILES)
def test_prefect_yaml_has_the_settings_of_each_profile(profile: str) -> None:
    assert validate(_deployments()[profile]["parameters"]["settings"], "prefect.yaml") == load_profile(profile)


def test_prefect_yaml_names_flows_that_are_there() -> None:
    entrypoints = {deployment["entrypoint"] for deployment in _deployments().values()}
    assert entrypoints == {"flows.benchmark.benchmark", "flows.rerun.rerun"}
    for entrypoint in entrypoints:
        module, _, name = entrypoint.rpartition(".")
        assert f"\ndef {name}(" in Path(ROOT, *module.split(".")).with_suffix(".py").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("deploy",), "nothing to deploy; name a profile (pcd deploy demo)"),
        (("deploy", "demo", "--cron", "0 3 * * *", "--interval", "1h"), "a deployment has one schedule"),
        (("deploy", "dmo"), 'unknown profile "dmo": did you mean "demo"?'),
        (("deploy", "demo", "--share", "dta"), 'unknown kind of stage to share "dta": did you mean "data"?'),
        (("rerun", "demo"), "no finished benchmark demo here; run one: pcd run demo"),
        (("rerun", "--share", "finetune"), 'unknown kind of stage to share "finetune"'),
    ],
)
def test_what_the_user_can_mend_is_one_line(pcd: Pcd, arguments: tuple[str, ...], told: str) -> None:
    done = pcd(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {told}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("deploy", "demo"), ("worker",)])
@pytest.mark.parametrize("port", [":9", ""])
def test_without_a_server_the_error_says_how_to_start_one_and_no_password(
    pcd: Pcd, arguments: tuple[str, ...], port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:hidden@127.0.0.1{port}/api")
    done = pcd(*arguments)
    assert done.returncode == 2
    assert f"no Prefect server answers at http://127.0.0.1{port}/api" in done.stderr
    assert "hidden" not in done.stdout + done.stderr
    assert "start one that stays: `pcd ui`, or set PREFECT_API_URL" in done.stderr
