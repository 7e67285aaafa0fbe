"""A real group of two processes, for the tests of what ranks do together."""

import contextlib
import os
import queue
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

import cloudpickle
import torch
import torch.distributed as dist

from pcd.distributed import process_group
from pcd.stage import Finished
from tests.fork_server import fork_server
from tests.patience import PATIENCE

FINISHED = "finished"
"""The answer of a rank that was sent home because one of them found the stage's result."""


class _Failed(str):
    """The traceback of a rank."""


def on_two_ranks(work: Callable[[], Any], *, found_result_on: int | None = None) -> list[Any]:
    """What a function, which may be a lambda, gives on rank 0 and on rank 1.

    Args:
        work: Runs with one thread, and with its rank's own random numbers seeded alike.
        found_result_on: The rank that says, on joining, that the stage's result is there already.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    context = fork_server()
    answers: Any = context.Queue()
    pickled = cloudpickle.dumps(work)
    processes = [
        context.Process(target=_join, args=(n, port, pickled, n == found_result_on, answers), daemon=True)
        for n in (0, 1)
    ]
    for process in processes:
        process.start()
    gathered: dict[int, Any] = {}
    try:
        while len(gathered) < len(processes):
            number, answer = _next_answer(answers, processes)
            assert not isinstance(answer, _Failed), f"rank {number}: {answer}"
            gathered[number] = answer
        for process in processes:
            process.join(PATIENCE)
    finally:
        for process in processes:  # one that failed leaves the other waiting for it
            process.kill()
    return [gathered[0], gathered[1]]


def _next_answer(answers: Any, processes: Sequence[BaseProcess]) -> tuple[int, Any]:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(queue.Empty):
            answer: tuple[int, Any] = answers.get(timeout=1)
            return answer
        killed = [process.exitcode for process in processes if process.exitcode]
        assert not killed, f"a rank ended with {killed[0]}"
    raise AssertionError("the ranks do not answer")


def _join(number: int, port: str, work: bytes, found_result: bool, answers: Any) -> None:
    os.environ |= {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        with process_group("cpu", found_result=found_result):
            dist.barrier()  # gloo fails on a rank that is still joining when the other has left
            answers.put((number, cloudpickle.loads(work)()))
    except Finished:
        answers.put((number, FINISHED))
    except BaseException:
        answers.put((number, _Failed(traceback.format_exc())))
