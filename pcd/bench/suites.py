"""The suites by name: to add one, write its function in a file of its own and name it here."""

from pcd.bench.harness import Suite
from pcd.bench.input import input_suite
from pcd.bench.loss import loss_suite
from pcd.bench.resume import resume_suite
from pcd.bench.step import step_suite

__all__ = ["SUITES"]

SUITES: dict[str, Suite] = {
    "loss": loss_suite,
    "input": input_suite,
    "step": step_suite,
    "resume": resume_suite,
}
