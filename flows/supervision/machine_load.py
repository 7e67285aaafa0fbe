"""What the machine does while a stage runs: processor, memory, disk and GPUs, sampled into <work>/system.jsonl."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pynvml

from eval.metric_lines import read_metric_lines

__all__ = ["sample_load", "sampled_load"]

_EVERY_SECONDS: Final = 10.0
_MB: Final = 2**20


@contextmanager
def sampled_load(file: Path, every: float = _EVERY_SECONDS) -> Iterator[None]:
    """Append a sample now, every `every` seconds, and none after the block has ended."""
    over = threading.Event()
    first, is_torn = _end_of(file)

    def work() -> None:
        step, torn = first + 1, is_torn
        while True:
            try:
                line = {"step": step, "time": round(time.time(), 3), **sample_load(file.parent)}
                with file.open("a") as out:
                    out.write("\n" * torn + json.dumps(line) + "\n")
                torn = False
            except OSError:  # the disk that is full may be this one; what trains tells of it
                torn = True
            step += 1
            if over.wait(every):
                return

    psutil.cpu_percent()  # its first answer has nothing to compare with
    thread = threading.Thread(target=work, name="load", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sample_load(disk: Path) -> dict[str, float]:
    """Named and measured as MLflow names its own system metrics, so that its page shows them under their heading."""
    memory, space = psutil.virtual_memory(), psutil.disk_usage(str(disk))
    load = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": round(memory.used / _MB),
        "system/system_memory_usage_percentage": memory.percent,
        "system/disk_usage_percentage": space.percent,
        "system/disk_available_megabytes": round(space.free / _MB),
    }
    return load | _gpu_load()


def _gpu_load() -> dict[str, float]:
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:  # no driver
        return {}
    load: dict[str, Any] = {}
    for number in range(count):
        try:
            gpu = pynvml.nvmlDeviceGetHandleByIndex(number)
            used = pynvml.nvmlDeviceGetMemoryInfo(gpu).used
            load[f"system/gpu_{number}_memory_usage_megabytes"] = round(int(used) / _MB)
            load[f"system/gpu_{number}_utilization_percentage"] = pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu
        except pynvml.NVMLError:  # a card that does not tell, as a partitioned one of its utilisation
            continue
    return load


def _end_of(file: Path) -> tuple[int, bool]:
    """The last step of an attempt before this one, and whether a kill cut its line short: the next needs a new one."""
    try:
        text = file.read_bytes()
        last = max((int(line.get("step", 0)) for line in read_metric_lines(file)), default=0)
    except OSError:
        return 0, False
    return last, text[-1:] not in (b"", b"\n")
