"""Where everything of a machine lies, and the environment that keeps its servers local and quiet."""

import os
from pathlib import Path
from typing import Final

__all__ = ["MLFLOW_PORT", "PREFECT_PORT", "QUIET", "home", "report_path", "set_environment", "tracking_uri"]

MLFLOW_PORT: Final = 5000
PREFECT_PORT: Final = 4200


def home() -> Path:
    """$PCD_HOME, or ./runs: the store, both databases, logs."""
    return Path(os.environ.get("PCD_HOME", "runs")).expanduser().absolute()


def tracking_uri() -> str:
    """$MLFLOW_TRACKING_URI, or an SQLite file of our own."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def report_path(name: str, key: str, part: str | None = None) -> Path:
    """Where a benchmark's report lies if nobody names another place; a rerun's (`part`) beside its original's."""
    return home() / "reports" / f"{name}-{key[:12]}{f'.{part}' if part else ''}.html"


QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes for GenAI jobs that nobody here submits
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # its 7 would take minutes to say that nobody answers
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with the password that it may hold
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # one for each file of a registered student, in our own output
    "DO_NOT_TRACK": "1",
}
"""What a run needs wherever it is: on this machine, or started by a worker."""


def set_environment() -> None:
    """Defaults for Prefect and MLflow; to be called before either is imported. What the user has set stays."""
    defaults = {
        # Prefect's own database lies apart from MLflow's: two writers of one SQLite file lock each other out.
        "PREFECT_HOME": str(home() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # its first start migrates the database: 20 s
        # Slots of a run that was killed come free also behind a server that was started anew.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_CLI_COLORS": "false",
        **QUIET,
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
