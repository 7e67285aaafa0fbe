"""Where tests fork processes of ours from: a clean one, that has imported what they need once for all of them."""

import multiprocessing
from multiprocessing.context import ForkServerContext
from typing import Final

__all__ = ["fork_server"]

_IMPORTED: Final = ("pcd.train", "eval.detectron.config", "eval.detectron.evaluate", "eval.detectron.train")


def fork_server() -> ForkServerContext:
    """One for each of pytest's workers, whoever asks first. Never the worker itself: autograd refuses to run in the
    fork of a process whose engine has begun a thread, so that a test would depend on those that ran before it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    return context
