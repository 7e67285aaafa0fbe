"""A page in headless Chromium: what became of it, what its console said, what it asked the network for."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.patience import PATIENCE

_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"),
    *("--disable-component-update", "--no-first-run", "--enable-logging=stderr"),
)


@dataclass(frozen=True, slots=True)
class Opened:
    dom: str
    console: list[str]
    requests: list[str]
    """Addresses that the page itself asked for; what the browser does on its own is not among them."""


def open_in_chromium(page: Path, folder: Path) -> Opened:
    """Skips the test where there is no Chromium. `folder` takes the browser's profile and log."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here (Debian's package chromium)")
    log = folder / "network.json"
    command = [chromium, *_OPTIONS, f"--log-net-log={log}", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=PATIENCE, check=True)
    network = json.loads(log.read_text())
    started = network["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    events = [event.get("params", {}) for event in network["events"] if event["type"] == started]
    return Opened(
        dom=done.stdout,
        console=[line for line in done.stderr.splitlines() if ":CONSOLE:" in line],
        requests=[event["url"] for event in events if event.get("initiator", "not an origin") != "not an origin"],
    )
