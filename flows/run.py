"""`pcd run`: a benchmark from its settings to the printed table."""

import logging
import sys
import time
import warnings
from pathlib import Path

from rich.console import Console

from flows.home import home, set_environment
from flows.interrupt import treat_sigterm_as_ctrl_c
from flows.plan import make_plan
from flows.prefect_server import connect
from flows.progress import Lines, describe_plan
from flows.run_record import RunRecord, find_record
from flows.settings import Benchmark
from flows.store import Store
from pcd.errors import PCDError

__all__ = ["run_benchmark"]


def run_benchmark(settings: Benchmark) -> RunRecord:
    """Run the benchmark and return the record of its finished run; one that is stored whole costs a second.

    Raises PCDError with the one line the user has to read, and KeyboardInterrupt when stopped.
    """
    plan, store = make_plan(settings), Store(home() / "store")
    record = find_record(plan)
    if record is not None and all(store.find(stage) for stage in plan.stages):
        lines = Lines(Console(file=sys.stdout))
        lines.note(describe_plan(plan, len(plan.stages)))
        for number, stage in enumerate(plan.stages, start=1):
            lines.stage_is_stored(number, len(plan.stages), stage)
        return record
    _run_flow(settings)
    record = find_record(plan)
    assert record is not None  # the flow wrote it last
    return record


def _run_flow(settings: Benchmark) -> None:
    set_environment()
    log = _log_to_file()
    treat_sigterm_as_ctrl_c()
    print(f"starting Prefect and MLflow; their log is {log}", flush=True)
    connect(log)
    from flows.benchmark import benchmark

    _silence_console()
    benchmark(settings)


def _log_to_file() -> Path:
    """Send what the libraries log and warn of to a file, and nothing of it to the terminal."""
    folder = home() / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PCDError(f"cannot write to {home()} ({error.strerror}); set PCD_HOME to a writable folder") from None
    path = folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}.log"
    logging.basicConfig(filename=path, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
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
