"""A real group of two processes, for the tests of what ranks do together.

The ranks come from multiprocessing's fork server, never from the test's own process: autograd refuses to run in the
fork of a process whose engine has begun a thread, so that a test would depend on those that ran before it.
"""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import cloudpickle
import torch
import torch.distributed as dist

from pcd.distributed import process_group
from pcd.stage import Finished

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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pcd.train"])  # imported once, for all ranks of all tests
    answers: Any = context.Queue()
    pickled = cloudpickle.dumps(work)
    processes = [context.Process(target=_join, args=(n, port, pickled, n == found_result_on, answers)) for n in (0, 1)]
    for process in processes:
        process.start()
    gathered = dict(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert not any(isinstance(answer, _Failed) for answer in gathered.values()), gathered
    return [gathered[0], gathered[1]]


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
