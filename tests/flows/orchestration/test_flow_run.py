import httpx
import pytest
from prefect.exceptions import PrefectException

from flows.orchestration.flow_run import tell_prefect


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), PrefectException("no such artifact")])
def test_what_prefect_does_not_take_is_told_and_loses_no_run(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def tell() -> None:
        raise error

    tell_prefect(tell)
    assert "Prefect did not take it" in caplog.text


def test_a_fault_of_our_own_is_not_taken_for_prefects() -> None:
    def tell() -> None:
        raise KeyError("ap_table")

    with pytest.raises(KeyError):
        tell_prefect(tell)
