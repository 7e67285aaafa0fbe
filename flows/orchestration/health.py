"""Whether a Prefect server answers, asked without Prefect and without the login that its address may hold."""

import urllib.error
import urllib.request
from http.client import HTTPException

from flows.logins import without_login

__all__ = ["reason_for_silence"]


def reason_for_silence(url: str) -> str | None:
    """Why no server answers at this API's address; None: one does."""
    try:
        with urllib.request.urlopen(f"{without_login(url).rstrip('/')}/health", timeout=10):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return None  # it answers; whether it lets us in is told by Prefect itself
    except (OSError, ValueError, HTTPException) as error:
        return str(getattr(error, "reason", error))
