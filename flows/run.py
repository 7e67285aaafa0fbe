"""`pcd run`: a benchmark from its settings to the printed table."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from flows.home import home, set_environment
from flows.interrupt import treat_sigterm_as_ctrl_c
from flows.journal import read_journals
from flows.logins import LoginlessFormatter
from flows.orchestration.prefect_server import connect
from flows.planning.plan import make_plan
from flows.progress import Lines, describe_plan
from flows.run_record import RunRecord, find_record, forget_holes, record_since
from flows.settings import Benchmark
from flows.store.store import open_store
from flows.supervision.processes import identity
from pcd.errors import PCDError, StageFailedError
from pcd.os_errors import plain_os_errors

__all__ = ["prefect_and_mlflow", "run_benchmark"]

_log = logging.getLogger(__name__)


def run_benchmark(
    settings: Benchmark, *, only: tuple[str, ...] = (), from_stage: str | None = None, fresh: bool = False,
) -> RunRecord:  # fmt: skip
    """Run the benchmark and return the record of its run; one that is stored whole costs a second or two.

    Args:
        only: patterns of cells; the others become named holes of the table.
        from_stage: this stage and all behind it are computed anew.
        fresh: all are.

    Raises:
        PCDError: the one line that the user has to read; nothing was measured.
        StageFailedError: stages failed, and there is nothing to make a table of.
        KeyboardInterrupt: stopped.
    """
    plan, store = make_plan(settings), open_store()
    if plan.missing:
        raise PCDError("; ".join(plan.missing))
    record = None if only or from_stage or fresh else find_record(plan)
    if record is not None and all(store.find(stage) for stage in plan.stages):
        lines = Lines(Console(file=sys.stdout))
        lines.note(describe_plan(plan, len(plan.stages)))
        for number, stage in enumerate(plan.stages, start=1):
            lines.stage_is_stored(number, len(plan.stages), stage)
        forget_holes(record)
        return record
    began = time.time()
    with prefect_and_mlflow():
        import httpx
        from prefect.exceptions import PrefectException

        from flows.benchmark import benchmark

        try:
            with plain_os_errors(home()):
                benchmark(settings, only=only, from_stage=from_stage, fresh=fresh)
        except (StageFailedError, httpx.HTTPError, PrefectException):
            # A table with holes is worth showing, and one that a server died behind is whole.
            if record_since(plan, began) is None:
                raise
            _log.warning("the flow ended with an error behind its table", exc_info=True)
    record = record_since(plan, began)
    assert record is not None  # the flow wrote it last
    return record


@contextmanager
def prefect_and_mlflow() -> Iterator[None]:
    """For a flow that this process runs: servers before it, and when it is over, all of its states settled."""
    set_environment()
    log = _log_to_file()
    treat_sigterm_as_ctrl_c()
    print(f"starting Prefect and MLflow; their log is {log}", flush=True)
    connect(log)
    import flows.benchmark  # noqa: F401 -- with its handlers on the console, which are then taken away
    from flows.reconcile import close

    _silence_console()
    try:
        yield
    finally:
        for journal in read_journals(home()):
            if journal.run.process == identity() and not close(journal):
                print("MLflow or Prefect could not be told of all; the next run does it", flush=True)


def _log_to_file() -> Path:
    """Send what the libraries log and warn of to a file, and nothing of it to the terminal."""
    folder = home() / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PCDError(f"cannot write to {home()} ({error.strerror}); set PCD_HOME to a writable folder") from None
    path = folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}.log"
    handler = logging.FileHandler(path)
    form = logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s")
    handler.setFormatter(LoginlessFormatter(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every heartbeat
    logging.captureWarnings(capture=True)
    warnings.simplefilter("default")
    return path


def _silence_console() -> None:
    """Importing Prefect and MLflow gives them console handlers of their own; the file keeps what they say."""
    for name in ("prefect", "mlflow", "alembic"):
        for logger in [logging.getLogger(name), *_children(name)]:
            for handler in list(logger.handlers):
                if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                    logger.removeHandler(handler)
            logger.propagate = True


def _children(name: str) -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.items()
    return [logger for key, logger in known if key.startswith(f"{name}.") and isinstance(logger, logging.Logger)]
